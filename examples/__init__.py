"""Recipes: each file has `build_model()` and `load_data()`, as `tfn train` expects."""
