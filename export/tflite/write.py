"""Writing `.tflite` files: one subgraph and signature per signature of the bundle."""

from __future__ import annotations

from pathlib import Path

from ...compiler.passes.cse import cse
from ...compiler.passes.dce import dce
from ...compiler.passes.simplify import simplify
from ..bundle import Bundle, Signature
from .flatbuffer import pack_model
from .graph import Graph, model_record
from .lowering import Lowering
from .rules import COMPOSITES, RULES


def write_tflite(bundle: Bundle, folder: Path) -> list[Path]:
    """Write folder/NAME.tflite with every signature of `bundle`; returns the paths written.

    Raises `UnsupportedError` naming the first op TFLite cannot express and where it comes from.
    """
    data = tflite_bytes(bundle)
    file = folder / f"{bundle.name}.tflite"
    file.write_bytes(data)
    return [file]


def tflite_bytes(bundle: Bundle) -> bytes:
    """The `.tflite` file of `bundle`; the same bytes for the same bundle."""
    graphs = [lower(bundle, bundle.signatures[name]) for name in sorted(bundle.signatures)]
    return pack_model(model_record(graphs, f"{bundle.name} {bundle.version}, written by tfn"))


def lower(bundle: Bundle, signature: Signature) -> Graph:
    """The finished graph of one signature."""
    function = dce(cse(simplify(signature.function)))
    lowering = Lowering(signature.name, RULES, COMPOSITES)
    weights = len(signature.weights)
    for name, value in zip(signature.weights, function.arguments, strict=False):
        lowering.set(value, lowering.graph.constant(bundle.weights[name], name))
    for spec, value in zip(signature.inputs, function.arguments[weights:], strict=True):
        lowering.set(value, lowering.input(spec.name, value.type))
    lowering.block(function.body)
    for spec, value in zip(signature.outputs, function.returns, strict=True):
        lowering.graph.outputs.append((spec.name, lowering.output(value)))
    return lowering.graph.finish()
