"""tfn: an end-to-end machine-learning platform on one typed IR.

This file only re-exports, and only when a name is asked for: `import tfn` is cheap, and a server
that needs `tfn.serving` never loads Keras.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .keras import plug as _plug

# Loads nothing: it lets a later `import keras` find the tfn backend. Where Keras is loaded already,
# on another backend, tfn stays out of its way; `tfn.keras` then says what to do.
# Test runners import the repository's root under its folder's name, too: that copy installs nothing.
if __name__ == "tfn" and "keras.src.backend" not in sys.modules:
    _plug.find_exporter = lambda format: import_module(".tools.exporters", __name__).exporter(format)
    _plug.install()

__version__ = "0.1.0"

# Public name: where it lives. A name without a colon is a module.
_PUBLIC = {
    "compiler": ".compiler",
    "debug": ".compiler.debug",
    "distributed": ".distributed",
    "export": ".export",
    "image": ".compiler.image",
    "keras": ".keras",
    "nn": ".compiler.nn",
    "numpy": ".compiler.numpy",
    "random": ".compiler.random",
    "serving": ".serving",
    "Array": ".compiler.trace.core:Array",
    "TfnError": ".compiler.errors:TfnError",
    "from_jax": ".compiler.trace.imported:from_jax",
    "from_stablehlo": ".compiler.trace.imported:from_stablehlo",
    **{name: f".compiler.trace.axis:{name}" for name in (
        "all_gather", "all_to_all", "axis_index", "axis_size", "pmax", "pmean", "pmin", "ppermute",
        "psum", "psum_scatter")},
    "associative_scan": ".compiler.trace.control:associative_scan",
    "checkpoint": ".compiler.trace.remat:checkpoint",
    "checkpoint_name": ".compiler.trace.remat:checkpoint_name",
    "checkpoint_policies": ".compiler.trace.remat:checkpoint_policies",
    "cond": ".compiler.trace.control:cond",
    "custom_jvp": ".compiler.trace.custom:custom_jvp",
    "custom_vjp": ".compiler.trace.custom:custom_vjp",
    "fori_loop": ".compiler.trace.control:fori_loop",
    "grad": ".compiler.trace.grad:grad",
    "hessian": ".compiler.trace.jacobian:hessian",
    "jacfwd": ".compiler.trace.jacobian:jacfwd",
    "jacrev": ".compiler.trace.jacobian:jacrev",
    "jvp": ".compiler.trace.forward:jvp",
    "profile": ".compiler.profile:profile",
    "linearize": ".compiler.trace.forward:linearize",
    "map": ".compiler.trace.control:map",
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


class _PublicModules(MetaPathFinder, Loader):
    """`import tfn.numpy.fft`: the module a public name stands for, not a second copy of it."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        root, _, name = fullname.partition(".")
        first, dot, rest = name.partition(".")
        home = _PUBLIC.get(first, f".{first}")
        if root != __name__ or ":" in home or home == f".{first}":
            return None
        return ModuleSpec(fullname, self, origin=f"{__name__}{home}{dot}{rest}")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        assert spec.origin is not None
        module = import_module(spec.origin)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has marked the module as found here; it keeps its own place.
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


if __name__ == "tfn":
    sys.meta_path.insert(0, _PublicModules())


def __getattr__(name: str) -> object:
    """Import a public name on first use, and keep it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfn' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    if attribute:
        # Arrays get their operators there: what takes or gives arrays works without `tfn.numpy`.
        import_module(".compiler.numpy", __name__)
    found: object = import_module(module, __name__)
    if attribute:
        found = getattr(found, attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
