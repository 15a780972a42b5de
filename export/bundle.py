"""The bundle: what leaves training. A directory NAME/VERSION/ of plain files in standard formats.

`module.mlir` holds one StableHLO function per signature, `weights.safetensors` the weights that are
its first arguments, `bundle.json` names, shapes and hashes. Serving and every export format start
from a `Bundle`; a `Runner` computes with one. Identical content gives identical bytes.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.errors import OpError, TfnError
from ..compiler.ir.core import Function, Module, TensorType
from ..compiler.ir.dims import Dim, Extent, parse_dim
from ..compiler.ir.dtypes import DType, as_dtype, by_name
from ..compiler.ir.dynamic import refine
from ..compiler.ir.evaluator import evaluate
from ..compiler.ir.parser import parse_module
from ..compiler.ir.printer import print_module
from .weights import pack_weights, unpack_weights

FORMAT, FORMAT_VERSION = "tfn-bundle", 1
DESCRIPTION, MODULE, WEIGHTS = "bundle.json", "module.mlir", "weights.safetensors"

# A larger file is refused before it is read: nothing a bundle needs comes near.
SIZE_LIMITS = {DESCRIPTION: 64 << 20, MODULE: 2 << 30, WEIGHTS: 1 << 40}
"""Bytes a file of a bundle may have."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[1-9][0-9]*")


class BundleError(TfnError, ValueError):
    """A bundle that is missing, damaged, or does not fit together; says which file and why."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of one input or output; an extent may be a symbolic `Dim`."""

    name: str
    dtype: DType
    shape: tuple[Extent, ...]

    @property
    def type(self) -> TensorType:
        return TensorType(self.shape, self.dtype)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Signature:
    """One entry point. The arguments of `function` are its weights, then its inputs, in order."""

    name: str
    function: Function
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Bundle:
    """A model that can be served and exported: signatures by name, and their weights."""

    name: str
    version: int
    signatures: dict[str, Signature]
    weights: dict[str, np.ndarray] = field(repr=False)
    provenance: dict[str, Any] = field(default_factory=dict)

    def signature(self, name: str) -> Signature:
        """The signature `name`; `BundleError` lists those there are."""
        if name not in self.signatures:
            raise BundleError(f"the bundle {self.name!r} has no signature {name!r}; it has"
                              f" {', '.join(sorted(self.signatures)) or 'none'}")
        return self.signatures[name]


# -- writing --------------------------------------------------------------------------------------

def write_bundle(directory: str | os.PathLike, bundle: Bundle, overwrite: bool = False) -> Path:
    """Write `bundle` to directory/NAME/VERSION, completely or not at all; returns that path.

    Raises `BundleError` when the version exists (unless `overwrite`) or the signatures do not fit
    their functions and weights.
    """
    if not _NAME.fullmatch(bundle.name):
        raise BundleError(f"a bundle cannot be called {bundle.name!r}; use letters, digits, '.',"
                          " '-' and '_', beginning with a letter or digit")
    if not isinstance(bundle.version, int) or bundle.version < 1:
        raise BundleError(f"a version is an integer from 1 on, got {bundle.version!r}")
    for signature in bundle.signatures.values():
        _check_signature(signature, bundle.weights)
    parent = Path(directory) / bundle.name
    target = parent / str(bundle.version)
    if target.exists() and not overwrite:
        raise BundleError(f"{target} exists; versions are never changed: write version"
                          f" {bundle.version + 1}, or pass overwrite=True")
    try:
        files = bundle_files(bundle)
    except ValueError as error:
        if isinstance(error, TfnError):
            raise
        raise BundleError(f"the bundle {bundle.name!r} cannot be written: {error}") from error
    parent.mkdir(parents=True, exist_ok=True)
    # The dot keeps a server that watches the folder from taking it for a version.
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=parent))
    try:
        staging.chmod(0o755)
        for name, data in files.items():
            with open(staging / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def bundle_files(bundle: Bundle) -> dict[str, bytes]:
    """The bundle as file name -> bytes."""
    module = Module(name=re.sub(r"\W", "_", bundle.name))
    for name in sorted(bundle.signatures):
        module.add(replace(bundle.signatures[name].function, name=name, public=True))
    files = {MODULE: print_module(module).encode(), WEIGHTS: pack_weights(bundle.weights)}
    described = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "name": bundle.name,
        "provenance": bundle.provenance, "weights": list(bundle.weights),
        "signatures": {s.name: _describe(s) for s in bundle.signatures.values()},
        "sha256": {name: sha256(data).hexdigest() for name, data in files.items()},
    }
    text = json.dumps(described, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    return {**files, DESCRIPTION: text.encode()}


def _describe(signature: Signature) -> dict[str, Any]:
    """The entry of a signature in bundle.json."""
    return {"function": signature.name, "inputs": [_describe_spec(s) for s in signature.inputs],
            "outputs": [_describe_spec(s) for s in signature.outputs],
            "weights": list(signature.weights)}


def _describe_spec(spec: TensorSpec) -> dict[str, Any]:
    shape = [str(d) if isinstance(d, Dim) else int(d) for d in spec.shape]
    return {"name": spec.name, "dtype": spec.dtype.name, "shape": shape}


def _put_in_place(staging: Path, target: Path) -> None:
    """Rename `staging` to `target`; what was there before goes."""
    if target.exists():
        if _exchange(staging, target):
            return
        old = Path(tempfile.mkdtemp(prefix=".replaced-", dir=target.parent))
        try:
            os.rename(target, old / target.name)
            os.rename(staging, target)
        except BaseException:
            if not target.exists():
                os.rename(old / target.name, target)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    else:
        try:
            os.rename(staging, target)
        except OSError as error:
            if target.exists():
                raise BundleError(f"{target} was written by somebody else meanwhile") from error
            raise


def _exchange(a: Path, b: Path) -> bool:
    """Let two directories change places in one step, so that a server never sees neither; False where
    the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and not rename(here, os.fsencode(a), here, os.fsencode(b), exchange)


# -- reading --------------------------------------------------------------------------------------

def read_bundle(path: str | os.PathLike) -> Bundle:
    """The bundle at NAME/VERSION, or the highest version at NAME.

    Raises `BundleError` naming the file that is missing, truncated, edited or inconsistent.
    """
    folder = find_version(path)
    description = _parse_description(folder)
    data = {name: _read_hashed(folder, name, description) for name in (MODULE, WEIGHTS)}
    try:
        weights = unpack_weights(data[WEIGHTS])
    except ValueError as error:
        raise _damaged(folder / WEIGHTS, str(error)) from error
    for name in description["weights"]:
        if name not in weights:
            raise _damaged(folder / WEIGHTS, f"it lacks the weight {name!r}")
    try:
        module = parse_module(data[MODULE].decode(), str(folder / MODULE))
    except (TfnError, UnicodeDecodeError) as error:
        raise _damaged(folder / MODULE, str(error)) from error
    signatures = {}
    for name, row in description["signatures"].items():
        signatures[name] = _read_signature(folder, name, row, module, weights)
    return Bundle(description["name"], int(folder.name), signatures,
                  {name: weights[name] for name in description["weights"]},
                  description["provenance"])


def find_version(path: str | os.PathLike) -> Path:
    """`path` itself when it is NAME/VERSION, the highest version below it when it is NAME."""
    folder = Path(path)
    if not folder.is_dir():
        raise BundleError(f"there is no bundle at {folder}: "
                          + ("it is a file" if folder.exists() else "no such directory"))
    folder = folder.resolve()
    if _VERSION.fullmatch(folder.name) and not _versions(folder):
        return folder
    versions = _versions(folder)
    if versions:
        return folder / str(versions[-1])
    if (folder / DESCRIPTION).exists():
        raise BundleError(f"{folder} holds a bundle, but the directory of a bundle is named after"
                          " its version; rename it to NAME/1")
    raise BundleError(f"there is no bundle at {folder}: expected {folder.name}/VERSION/"
                      f"{DESCRIPTION}")


def _versions(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir()
                  if _VERSION.fullmatch(p.name) and p.is_dir())


def _damaged(file: Path, why: str) -> BundleError:
    return BundleError(f"{file} is damaged: {why}. Restore it from a copy or export the model"
                       " again")


def _read_file(file: Path) -> bytes:
    try:
        size = file.stat().st_size
        if size > SIZE_LIMITS[file.name]:
            raise BundleError(f"{file} has {size} bytes; a bundle's may have"
                              f" {SIZE_LIMITS[file.name]}")
        return file.read_bytes()
    except FileNotFoundError:
        raise _damaged(file, "it is missing") from None
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}") from error


def _read_hashed(folder: Path, name: str, description: dict[str, Any]) -> bytes:
    file = folder / name
    data = _read_file(file)
    if sha256(data).hexdigest() == description["sha256"][name]:
        return data
    raise _damaged(file, f"its SHA-256 is not the one in {DESCRIPTION}, so it was truncated,"
                         f" edited or exchanged (it has {len(data)} bytes)")


_ENTRIES: dict[str, type] = {"format": str, "format_version": int, "name": str, "weights": list,
                             "provenance": dict, "signatures": dict, "sha256": dict}


def _parse_description(folder: Path) -> dict[str, Any]:
    file = folder / DESCRIPTION
    data = _read_file(file)
    try:
        described = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"it is not JSON ({error})") from None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise _damaged(file, f'it is no bundle description ("format" must be "{FORMAT}")')
    version = described.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(f"{file} has format_version {version!r}; this tfn reads"
                          f" {FORMAT_VERSION}. Use the tfn that wrote it, or export again")
    for name, kind in _ENTRIES.items():
        if not isinstance(described.get(name), kind):
            raise _damaged(file, f'"{name}" is missing or not a {kind.__name__}')
    if not all(isinstance(name, str) for name in described["weights"]):
        raise _damaged(file, '"weights" must be names')
    for name in (MODULE, WEIGHTS):
        if not isinstance(described["sha256"].get(name), str):
            raise _damaged(file, f'"sha256" has no entry for {name}')
    return described


def _read_signature(folder: Path, name: str, row: Any, module: Module,
                    weights: Mapping[str, np.ndarray]) -> Signature:
    file = folder / DESCRIPTION
    try:
        inputs, outputs = (tuple(map(_read_spec, row[k])) for k in ("inputs", "outputs"))
        names, target = tuple(row["weights"]), row["function"]
        function = module.functions.get(target)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(file, f"the signature {name!r} is malformed"
                             f" ({type(error).__name__}: {error})") from None
    if function is None:
        raise _damaged(file, f"the signature {name!r} names the function {target!r}, which is not"
                             f" in {MODULE}")
    missing = [w for w in names if w not in weights]
    if missing:
        raise _damaged(file, f"the signature {name!r} uses the weight {missing[0]!r}, which it does"
                             " not list")
    types = [*(_type_of(weights[w]) for w in names), *(s.type for s in inputs)]
    try:
        signature = Signature(name, refine(function, types), inputs, outputs, names)
        _check_signature(signature, weights)
    except TfnError as error:
        raise BundleError(f"the files of {folder} do not fit together: signature {name!r}:"
                          f" {error}. Export the model again") from error
    return signature


def _read_spec(row: Any) -> TensorSpec:
    extents = tuple(parse_dim(d) if isinstance(d, str) else int(d) for d in row["shape"])
    if any(isinstance(d, int) and d < 0 for d in extents):
        raise ValueError(f"negative extent in {row['shape']}")
    return TensorSpec(str(row["name"]), by_name(row["dtype"]), extents)


def _type_of(array: np.ndarray) -> TensorType:
    return TensorType(array.shape, as_dtype(array.dtype))


def _check_signature(signature: Signature, weights: Mapping[str, np.ndarray]) -> None:
    """Weights, then inputs, must be the function's arguments; outputs its results."""
    for name in signature.weights:
        if name not in weights:
            raise BundleError(f"the weight {name!r} is not among the bundle's weights")
    for specs, kind in ((signature.inputs, "inputs"), (signature.outputs, "outputs")):
        names = [s.name for s in specs]
        if len(set(names)) != len(names):
            raise BundleError(f"two {kind} of {signature.name!r} have one name: {names}")
    given = [(f"weight {w!r}", _type_of(weights[w])) for w in signature.weights]
    given += [(f"input {s.name!r}", s.type) for s in signature.inputs]
    _match(signature, "takes", signature.function.argument_types, given)
    results = [(f"output {s.name!r}", s.type) for s in signature.outputs]
    _match(signature, "returns", signature.function.result_types, results)


def _match(signature: Signature, verb: str, types: Sequence[TensorType],
           given: Sequence[tuple[str, TensorType]]) -> None:
    if len(types) != len(given):
        raise BundleError(f"the function of {signature.name!r} {verb} {len(types)} values, the"
                          f" signature has {len(given)}")
    for type, (what, described) in zip(types, given, strict=True):
        if type != described:
            raise BundleError(f"{what} is {_text(described)}, but the function {verb}"
                              f" {_text(type)}")


def _text(type: TensorType) -> str:
    return f"{type.dtype}[{', '.join(map(str, type.shape))}]"


# -- running --------------------------------------------------------------------------------------

class Runner:
    """Computes one signature of a bundle, for any size of its symbolic dims. Thread-safe.

    `engine` is "compiler" (machine code) or "evaluator" (NumPy op by op: the reference).
    """

    def __init__(self, bundle: Bundle, signature: str = "serving_default",
                 engine: str = "compiler"):
        self.bundle = bundle
        self.signature = bundle.signature(signature)
        self._weights = [bundle.weights[name] for name in self.signature.weights]
        if engine not in ENGINES:
            raise BundleError(f"there is no engine {engine!r}; there are {', '.join(ENGINES)}")
        self._call = ENGINES[engine](self.signature.function)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Outputs by name for arrays (or nested lists) by input name.

        Raises `OpError` naming the input that is missing, unknown, or of another type or shape.
        """
        unknown = sorted(set(inputs) - {s.name for s in self.signature.inputs})
        if unknown:
            raise OpError(f"{self.signature.name} has no input {unknown[0]!r}; its inputs are"
                          f" {', '.join(map(str, self.signature.inputs))}")
        sizes: dict[str, int] = {}
        arrays = [self._input(spec, inputs, sizes) for spec in self.signature.inputs]
        results = self._call(*self._weights, *arrays)
        return {s.name: r for s, r in zip(self.signature.outputs, results, strict=True)}

    def _input(self, spec: TensorSpec, inputs: Mapping[str, Any],
               sizes: dict[str, int]) -> np.ndarray:
        if spec.name not in inputs:
            raise OpError(f"{self.signature.name} needs the input {spec}")
        value = inputs[spec.name]
        try:
            array = value if isinstance(value, np.ndarray) else np.asarray(value, spec.dtype.numpy)
        except (TypeError, ValueError, OverflowError) as error:
            raise OpError(f"the input {spec} cannot be made of what was given: {error}") from error
        if array.dtype != spec.dtype.numpy:
            raise OpError(f"the input {spec} got {array.dtype}; convert it with"
                          f" .astype({spec.dtype.numpy.name!r})")
        for extent, actual in zip(spec.shape, array.shape, strict=False):
            if isinstance(extent, Dim) and len(extent.terms) == 1:
                (name, coefficient), = extent.terms
                sizes.setdefault(name, (actual - extent.constant) // coefficient)
        shape = tuple(_size(d, sizes) for d in spec.shape)
        if array.shape != shape or any(n < 1 for n in sizes.values()):
            raise OpError(f"the input {spec} got an array of shape {list(array.shape)}")
        return array


def _size(extent: Extent, sizes: Mapping[str, int]) -> int | None:
    if isinstance(extent, int):
        return extent
    return extent.evaluate(sizes) if all(n in sizes for n in extent.names) else None


def _compiled(function: Function):
    from ..compiler.compile import compile_function

    return compile_function(function)


def _evaluated(function: Function):
    return lambda *arrays: evaluate(function, arrays)


ENGINES = {"compiler": _compiled, "evaluator": _evaluated}
"""Engine name -> what makes a callable of a function."""
