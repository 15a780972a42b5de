"""tfn: an end-to-end machine-learning platform on one typed IR.

This file only re-exports, and only when a name is asked for: `import tfn` is cheap, and a server
that needs `tfn.serving` never loads Keras.
"""

import sys
from importlib import import_module

from .keras import plug as _plug

# Loads nothing: it lets a later `import keras` find the tfn backend. Where Keras is loaded already,
# on another backend, tfn stays out of its way; `tfn.keras` then says what to do.
# Test runners import the repository's root under its folder's name, too: that copy installs nothing.
if __name__ == "tfn" and "keras.src.backend" not in sys.modules:
    _plug.install()

__version__ = "0.1.0"

# Public name: where it lives. A name without a colon is a module.
_PUBLIC = {
    "compiler": ".compiler",
    "debug": ".compiler.debug",
    "distributed": ".distributed",
    "export": ".export",
    "keras": ".keras",
    "nn": ".compiler.nn",
    "numpy": ".compiler.numpy",
    "random": ".compiler.random",
    "serving": ".serving",
    "Array": ".compiler.trace.core:Array",
    "TfnError": ".compiler.errors:TfnError",
    "from_jax": ".compiler.trace.imported:from_jax",
    "from_stablehlo": ".compiler.trace.imported:from_stablehlo",
    "checkpoint": ".compiler.trace.custom:checkpoint",
    "cond": ".compiler.trace.control:cond",
    "custom_jvp": ".compiler.trace.custom:custom_jvp",
    "custom_vjp": ".compiler.trace.custom:custom_vjp",
    "fori_loop": ".compiler.trace.control:fori_loop",
    "grad": ".compiler.trace.grad:grad",
    "hessian": ".compiler.trace.forward:hessian",
    "jacfwd": ".compiler.trace.forward:jacfwd",
    "jacrev": ".compiler.trace.forward:jacrev",
    "jvp": ".compiler.trace.forward:jvp",
    "scan": ".compiler.trace.control:scan",
    "switch": ".compiler.trace.control:switch",
    "while_loop": ".compiler.trace.control:while_loop",
    "jit": ".compiler.trace.jit:jit",
    "stop_gradient": ".compiler.trace.grad:stop_gradient",
    "value_and_grad": ".compiler.trace.grad:value_and_grad",
    "vjp": ".compiler.trace.grad:vjp",
    "vmap": ".compiler.trace.batch:vmap",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    """Import a public name on first use, and keep it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfn' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    found: object = import_module(module, __name__)
    if attribute:
        found = getattr(found, attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
