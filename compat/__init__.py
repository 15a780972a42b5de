"""The `tensorflow` namespace for unmodified TF2 programs."""
