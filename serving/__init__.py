"""The model server: bundles behind FastAPI, in TensorFlow Serving's REST format."""
