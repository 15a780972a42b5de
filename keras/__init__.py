"""`tfn.keras`: Keras 3 on tfn, and what Keras lacks.

With the repository's root on `sys.path`, `import keras` finds this file instead of the Keras package.
It then steps aside: the first half of the file loads the real Keras under that name.
"""

if __name__ == "keras":

    def _step_aside() -> None:
        import os
        import sys
        from importlib.machinery import PathFinder
        from importlib.util import module_from_spec

        def is_this(entry: str) -> bool:
            # samefile, not a comparison of paths: Bazel's runfiles are symlinks.
            candidate = os.path.join(entry or os.getcwd(), "keras", "__init__.py")
            return os.path.exists(candidate) and os.path.samefile(candidate, __file__)

        spec = PathFinder.find_spec("keras", [e for e in sys.path if not is_this(e)])
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError("No module named 'keras': pip install 'keras>=3.15,<3.16'",
                                      name="keras")
        real = module_from_spec(spec)
        sys.modules["keras"] = real
        spec.loader.exec_module(real)

    _step_aside()
else:
    from . import plug as _plug

    _OWN = {"trace_inference": ".export", "EXPORTERS": ".export", "explain": ".explanation"}

    def __getattr__(name: str):
        """Names of Keras, and the functions of this package."""
        from importlib import import_module

        if name.startswith("__"):
            raise AttributeError(name)
        _plug.install()
        if name in _OWN:
            return getattr(import_module(_OWN[name], __name__), name)
        return getattr(import_module("keras"), name)

    def __dir__():
        from importlib import import_module

        _plug.install()
        return [*dir(import_module("keras")), *_OWN]
