"""The plug: unmodified Keras 3 on the `tfn` backend.

Keras picks its backend in a few top-level `if backend() == ...` chains. A finder compiles those
modules from an edited syntax tree that has one more branch; no file is touched, and tracebacks keep
upstream's line numbers. The names to bind are read from the chains, so upstream may rename them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

NAME = "tfn"
SUPPORTED = "3.15"
"""The version of Keras: what it asks of a backend differs from one to the next."""
_BACKEND = f"{__package__}.backend"

GRAFTS = {
    "keras.src.backend": "variable.Variable",
    "keras.src.layers.layer": "layer.BackendLayer",
    "keras.src.models.model": "trainer.Trainer",
    "keras.src.export.saved_model": "export.SavedModelExportArchive",
}
"""Keras module with a backend chain -> our object for the class the chain binds."""



def _asks_backend(node: ast.AST) -> bool:
    """Is this `if backend() == "...":`?"""
    return (isinstance(node, ast.If) and isinstance(node.test, ast.Compare)
            and isinstance(node.test.left, ast.Call)
            and ast.unparse(node.test.left.func) in ("backend", "backend.backend"))


def _links(first: ast.If) -> list[ast.If]:
    """The `if` and every `elif` that asks for the backend, in order."""
    chain = [first]
    while len(chain[-1].orelse) == 1 and _asks_backend(chain[-1].orelse[0]):
        following = chain[-1].orelse[0]
        assert isinstance(following, ast.If)
        chain.append(following)
    return chain


def graft(module: str, source: str) -> ast.Module:
    """The syntax tree of a Keras module with a branch for tfn before its final `else`.

    Raises `ImportError` when the module does not hold exactly one backend chain: this version of
    Keras is laid out in a way tfn does not know.
    """
    tree = ast.parse(source)
    chains = [_links(n) for n in tree.body if isinstance(n, ast.If) and _asks_backend(n)]
    chains = [c for c in chains if len(c) > 1]
    if len(chains) != 1:
        raise ImportError(
            f"tfn does not support this version of Keras: {module} has {len(chains)} backend"
            " chains where one is expected; install 'keras>=3.15,<3.16'")
    (chain,) = chains
    names = [(n, alias) for n in chain[0].body if isinstance(n, ast.ImportFrom)
             for alias in n.names]
    lines = []
    if any(alias.name == "*" for _, alias in names):
        lines += [f"from {_BACKEND} import *", f"from {_BACKEND} import distribution_lib"]
    bound = [alias.asname for _, alias in names if alias.asname]
    file, _, ours = GRAFTS[module].rpartition(".")
    lines += [f"from {_BACKEND}.{file} import {ours} as {name}" for name in bound[:1]]
    last = chain[-1]
    assert isinstance(last.test, ast.Compare)
    test = ast.Compare(last.test.left, [ast.Eq()], [ast.Constant(NAME)])
    last.orelse = [ast.If(test, ast.parse("\n".join(lines)).body, last.orelse)]
    return ast.fix_missing_locations(tree)


def check_version(text: str) -> None:
    """Raise `ImportError` unless the text of Keras's `version.py` has a version tfn is made for."""
    found = re.search(r"""__version__\s*=\s*["']([^"']+)""", text)
    version = found[1] if found else "unknown"
    if not version.startswith(f"{SUPPORTED}."):
        raise ImportError(f"tfn runs Keras {SUPPORTED}, and Keras {version} is installed: pip install"
                          f" 'keras=={SUPPORTED}.*'")


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module, then what `WRAPS` has for it."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if (wrap := WRAPS.get(module.__name__)) is not None:
            wrap(module)


class _GraftingLoader(_Loader):
    def get_code(self, fullname):
        # That module is being loaded: the environment says which backend it will be.
        if fullname == "keras.src.backend" and os.environ.get("KERAS_BACKEND", NAME) == NAME:
            version = os.path.join(os.path.dirname(self.path), os.pardir, "version.py")
            check_version(self.get_data(version).decode())
        source = self.get_data(self.path).decode()
        return compile(graft(fullname, source), self.path, "exec", dont_inherit=True)


class _JaxNames(ast.NodeTransformer):
    """What holds for the backend named jax holds for tfn, too."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        asked = node.comparators[0]
        names = asked.elts if isinstance(asked, (ast.Tuple, ast.List)) else [asked]
        if any(isinstance(n, ast.Constant) and n.value == "jax" for n in names):
            known = ast.Tuple([*names, ast.Constant(NAME)], ast.Load())
            node.ops, node.comparators = [ast.In()], [known]
        return node


class _StoredEmbeddings(ast.NodeTransformer):
    """LoRA freezes the variable, not the tensor that is unpacked from it."""

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        target = node.targets[0]
        if ast.unparse(target) == "self.embeddings.trainable":
            assert isinstance(target, ast.Attribute) and isinstance(target.value, ast.Attribute)
            target.value.attr = "_embeddings"
        return node


class _Profiling(ast.NodeTransformer):
    """`profile_batch` works, and who lacks TensorFlow, which writes the files, is told so."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        asked = node.comparators[0]
        if isinstance(node.ops[0], ast.NotIn) and isinstance(asked, ast.Tuple):
            asked.elts.append(ast.Constant(NAME))
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST:
        if node.names[0].name != "tensorflow.summary":
            return node
        (ours,) = ast.parse(f"summary = __import__('{_BACKEND}.tensorboard', fromlist=['']).summary()"
                            ).body
        return ast.copy_location(ours, node)


EDITS: dict[str, type[ast.NodeTransformer]] = {
    # It has a way of its own for the backend named jax, because a program's shapes are fixed.
    "keras.src.layers.preprocessing.image_preprocessing.equalization": _JaxNames,
    # It sets an attribute of a tensor, which ours do not allow.
    "keras.src.layers.core.embedding": _StoredEmbeddings,
    # It knows which backends can profile.
    "keras.src.callbacks.tensorboard": _Profiling,
    # It indexes with a list where an array takes a tuple.
    "keras_hub.src.models.roformer_v2.roformer_v2_attention": _JaxNames,
}
"""Keras module -> what is changed in its syntax tree for tfn; a tree without it stays as it is."""


class _EditingLoader(_Loader):
    def get_code(self, fullname):
        if not is_active():
            return super().get_code(fullname)
        tree = EDITS[fullname]().visit(ast.parse(self.get_data(self.path).decode()))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


def _wrap_dynamic_backend(module: ModuleType) -> None:
    """Preprocessing layers reach the backend by name when they are called; let them find ours."""
    dynamic = module.DynamicBackend
    find, choose = dynamic.__getattr__, dynamic.set_backend

    def __getattr__(self, name):
        if self._backend == NAME:
            return getattr(importlib.import_module("keras.src.backend"), name)
        return find(self, name)

    def set_backend(self, backend):
        if backend != NAME:
            choose(self, backend)
        self._backend = backend

    dynamic.__getattr__, dynamic.set_backend = __getattr__, set_backend


def _wrap_standardize(module: ModuleType) -> None:
    """A symbolic dim is an unknown one to Keras, as it is for the jax backend. And a layer asks for
    the names of dtypes several times per call, which NumPy makes anew each time."""
    import numpy as np  # `import tfn` loads this file, and no library.

    standardize, name_of = module.standardize_shape, module.standardize_dtype
    names: dict[np.dtype, str] = {}

    def standardize_dtype(dtype):
        if not isinstance(dtype, np.dtype):
            return name_of(dtype)
        name = names.get(dtype)
        if name is None:
            name = names[dtype] = name_of(dtype)
        return name

    def standardize_shape(shape):
        if isinstance(shape, tuple) and is_active():
            from ..compiler.ir.dims import Dim

            shape = tuple(None if isinstance(d, Dim) else d for d in shape)
        return standardize(shape)

    module.__dict__.update(standardize_shape=standardize_shape, standardize_dtype=standardize_dtype)


def _wrap_recurrent(module: ModuleType) -> None:
    """A layer whose cell has a kernel runs in it, with masks as the layer says."""
    plain = module.RNN.inner_loop

    def inner_loop(self, sequences, initial_state, mask, training=False):
        found = None
        if is_active():
            fused = importlib.import_module(f"{_BACKEND}.rnn").fused
            found = fused(self, sequences, initial_state, mask, training)
        return plain(self, sequences, initial_state, mask, training) if found is None else found

    module.RNN.inner_loop = inner_loop


def _no_exporter(format: str) -> None:
    """Until `tfn` has put its own in place."""


find_exporter: Callable[[str], Callable[..., Any] | None] = _no_exporter
"""Format -> `exporter(model, path, **options)` where tfn has one. `tfn` itself puts it here: exporters
know nothing of Keras, and Keras nothing of them."""


def _wrap_export(module: ModuleType) -> None:
    """`model.export(path, format=...)` knows tfn's formats; others go to Keras."""
    upstream = module.Model.export

    def export(self, filepath, format="tf_saved_model", **options):
        exporter = find_exporter(format) if is_active() else None
        if exporter is None:
            return upstream(self, filepath, format=format, **options)
        return exporter(self, filepath, **options)

    export.__doc__ = upstream.__doc__
    module.Model.export = export


def _wrap_keras_hub(module: ModuleType) -> None:
    """keras-hub compiles generation for the backends it knows by name."""
    from .hub import WRAPS

    WRAPS[module.__name__.removeprefix(_HUB)](module)


_HUB = "keras_hub.src.models."

WRAPS: dict[str, Callable[[ModuleType], None]] = {
    "keras.src.utils.backend_utils": _wrap_dynamic_backend,
    "keras.src.backend.common.variables": _wrap_standardize,
    "keras.src.layers.rnn.rnn": _wrap_recurrent,
    "keras.src.models.model": _wrap_export,
    **dict.fromkeys(
        [f"{_HUB}{name}" for name in ("causal_lm", "text_to_image", "image_to_image", "inpaint",
                                      "depth_anything.interpolate")], _wrap_keras_hub),
}
"""Keras module -> what is changed in it after it has run."""


class KerasFinder(importlib.abc.MetaPathFinder):
    """Loads the modules of the tables in a way of theirs; every other import passes by."""

    def find_spec(self, fullname, path=None, target=None):
        loader = (_GraftingLoader if fullname in GRAFTS else _EditingLoader if fullname in EDITS
                  else _Loader if fullname in WRAPS else None)
        if loader is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return None
        spec.loader = loader(fullname, spec.origin)
        return spec


def install() -> None:
    """Let the next `import keras` find the tfn backend, and prefer it unless another is chosen.

    Does nothing the second time. Raises `ImportError` when Keras is loaded already.
    """
    if any(isinstance(f, KerasFinder) for f in sys.meta_path):
        return
    if "keras.src.backend" in sys.modules:
        raise ImportError("keras was imported before tfn, so it cannot run on tfn any more: put"
                          " `import tfn` first, or start the script with KERAS_BACKEND=tfn")
    sys.meta_path.insert(0, KerasFinder())
    os.environ.setdefault("KERAS_BACKEND", NAME)


def is_active() -> bool:
    """Does Keras, loaded or not, run on tfn in this process?"""
    backend = sys.modules.get("keras.src.backend")
    if backend is not None:
        return backend.backend() == NAME
    return os.environ.get("KERAS_BACKEND", NAME) == NAME
