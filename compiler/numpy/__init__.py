"""NumPy-style functions over tfn arrays and tracers: the public `tfn.numpy`."""
