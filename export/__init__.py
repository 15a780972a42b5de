"""Bundles and what is shipped from them: one module per format, all written from the IR."""
