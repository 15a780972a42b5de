"""TFLite float32: the IR of a bundle's signatures as a `.tflite` file, for LiteRT.

`write` binds the weights; `lowering` walks the IR and calls the rules of `rules` and `windows`;
they build a `graph`, which fuses biases and activations; `flatbuffer` packs it. Needs flatbuffers
and numpy only.
"""

from __future__ import annotations

from .check import check_tflite
from .write import write_tflite

__all__ = ["check_tflite", "write_tflite"]
