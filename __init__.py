"""tfn: an end-to-end machine-learning platform on one typed IR."""

__version__ = "0.1.0"
