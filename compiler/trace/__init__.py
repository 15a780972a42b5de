"""Tracing and transforms: arrays, tracers, `jit`, `grad` and the pytrees they take."""
