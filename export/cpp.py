"""C++: one object file with everything in it, one header, and an example program.

The object holds the kernels and the weights and needs no runtime (`compiler/codegen/aot.py`). The
header turns its raw entry points into one typed function per signature. The example reads and
writes raw arrays; building and running it is the check.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..compiler.codegen.aot import Entry, emit_object, freeze
from ..compiler.codegen.target import Target
from ..compiler.errors import CompileError, UnsupportedError
from ..compiler.ir.dims import Dim, Extent, product
from ..compiler.ir.dtypes import DType
from .bundle import Bundle, Runner, Signature, TensorSpec
from .report import BATCHES, Check, Samples, errors, take_samples

TYPES = {"f32": "float", "f64": "double", "i1": "bool", "f16": "std::uint16_t",
         "bf16": "std::uint16_t",
         **{f"i{n}": f"std::int{n}_t" for n in (8, 16, 32, 64)},
         **{f"ui{n}": f"std::uint{n}_t" for n in (8, 16, 32, 64)}}
"""Element type -> C++ type; 16-bit floats are passed as their bits."""

ALIGNMENT = 64
"""Of the workspace; the header's functions see to it."""

DEFAULT_TARGETS = {"x86_64": "x86-64-v3", "aarch64": "aarch64", "arm64": "aarch64"}
"""Machine -> the target of an object that is to run on other machines of its kind, too."""


def write_cpp(bundle: Bundle, folder: Path, target: str | None = None) -> list[Path]:
    """Write NAME.o, NAME.h and main.cc for `bundle` into `folder`; returns their paths.

    `target` is a name or triple as `Target.named` takes it; by default the common level of this
    kind of machine. Raises `UnsupportedError` for an op or element type without code.
    """
    model = _Model(bundle, _target(target))
    files = {f"{bundle.name}.o": model.image, f"{bundle.name}.h": model.header().encode(),
             "main.cc": model.example().encode()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def _target(name: str | None) -> Target:
    if name is None:
        name = DEFAULT_TARGETS.get(platform.machine(), "host")
        # A machine older than that level runs what it exports.
        if not runs_here(Target.named(name)):
            name = "host"
    return Target.named(name)


def runs_here(target: Target) -> bool:
    """Whether this machine has the architecture and the features of `target`."""
    host = Target.host()
    have = set(host.features.split(","))
    needed = {f for f in target.features.split(",") if f.startswith("+")}
    same = target.triple.split("-")[0] == host.triple.split("-")[0]
    return same and (needed <= have or host.triple.startswith("aarch64"))


# -- names ----------------------------------------------------------------------------------------

_WORDS = """
alignas alignof and asm auto bool break case catch char class const constexpr continue default
delete do double else enum explicit export extern false float for friend goto if inline int long
main mutable namespace new not nullptr operator or private protected public register return short
signed sizeof static std struct switch template this throw true try typedef typename union unsigned
using virtual void volatile while xor
"""
_RESERVED = frozenset(_WORDS.split())


def identifier(name: str, taken: Sequence[str] = ()) -> str:
    """A C++ identifier like `name` that is not in `taken`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not plain or plain[0].isdigit() or plain in _RESERVED:
        plain = f"m_{plain}"
    while plain in taken:
        plain += "_"
    return plain


# -- the object -----------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Function:
    """One signature in C++: its names and its entry in the object."""

    name: str
    signature: Signature
    entry: Entry
    dims: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def tensors(self):
        """(C++ name, spec, whether it is written) of inputs, then outputs."""
        yield from ((n, s, False) for n, s in
                    zip(self.inputs, self.signature.inputs, strict=True))
        yield from ((n, s, True) for n, s in
                    zip(self.outputs, self.signature.outputs, strict=True))

    @property
    def dim_parameters(self) -> list[str]:
        return [f"std::int64_t {d}" for d in self.dims]

    def parameters(self, extent: Extent) -> str:
        """The dims as parameters; those `extent` does not depend on have no name."""
        used = extent.names if isinstance(extent, Dim) else ()
        return ", ".join(f"std::int64_t {name}" if dim in used else "std::int64_t"
                         for dim, name in zip(self.entry.dims, self.dims, strict=True))

    def expression(self, extent: Extent) -> str:
        """An extent in terms of the function's parameters."""
        if not isinstance(extent, Dim):
            return f"INT64_C({extent})"
        names = dict(zip(self.entry.dims, self.dims, strict=True))
        terms = [names[n] if c == 1 else f"INT64_C({c}) * {names[n]}" for n, c in extent.terms]
        return " + ".join([*terms, *([f"INT64_C({extent.constant})"] if extent.constant else [])])


class _Model:
    """A bundle compiled for one target, and the texts that go with it."""

    def __init__(self, bundle: Bundle, target: Target):
        self.bundle, self.target = bundle, target
        self.namespace = identifier(bundle.name)
        frozen = {}
        for name, signature in sorted(bundle.signatures.items()):
            for spec in (*signature.inputs, *signature.outputs):
                _type(spec)
            weights = {i: bundle.weights[w] for i, w in enumerate(signature.weights)}
            frozen[f"{self.namespace}_{identifier(name)}_entry"] = (
                signature, freeze(signature.function, weights))
        compiled = emit_object({symbol: f for symbol, (_, f) in frozen.items()}, target)
        self.image = compiled.image
        self.functions = [self._function(signature, compiled.entries[symbol])
                          for symbol, (signature, _) in frozen.items()]

    def _function(self, signature: Signature, entry: Entry) -> _Function:
        taken = ["workspace", "dims", "arguments", "results"]

        def names(originals: Sequence[str]) -> tuple[str, ...]:
            made = []
            for original in originals:
                made.append(identifier(original, taken))
                taken.append(made[-1])
            return tuple(made)

        dims = names(entry.dims)
        inputs = names([s.name for s in signature.inputs])
        return _Function(identifier(signature.name), signature, entry, dims, inputs,
                         names([s.name for s in signature.outputs]))

    # -- the header

    def header(self) -> str:
        """The text of NAME.h."""
        guard = f"{self.namespace.upper()}_H_"
        lines = [
            f"// {self.bundle.name}, version {self.bundle.version}. Written by tfn for"
            f" {self.target}.",
            f"// Link {self.bundle.name}.o; nothing else is needed. All functions may be called",
            "// from several threads at once, each with a workspace of its own.",
            f"#ifndef {guard}", f"#define {guard}", "", "#include <cstdint>", "",
            'extern "C" {',
            *(f"void {f.entry.symbol}(\n    const std::int64_t* dims, const void* const* arguments,"
              " void* const* results,\n    void* workspace);" for f in self.functions),
            "}", "", f"namespace {self.namespace} {{", ""]
        for function in self.functions:
            lines += [*self._sizes(function), *self._wrapper(function), ""]
        if len(self.functions) == 1:
            lines += self._only_size(self.functions[0])
        return "\n".join([*lines, f"}}  // namespace {self.namespace}", "", f"#endif  // {guard}",
                          ""])

    def _sizes(self, f: _Function) -> list[str]:
        """Shapes and element counts of every tensor, and the workspace's bytes."""
        lines = []
        for name, spec, _ in f.tensors():
            shape = ", ".join("-1" if isinstance(d, Dim) else str(d) for d in spec.shape)
            if spec.shape:
                lines.append(f"constexpr std::int64_t {f.name}_{name}_shape[] = {{{shape}}};")
            parameters = f.parameters(product(spec.shape))
            lines.append(f"constexpr std::int64_t {f.name}_{name}_elements({parameters}) {{")
            lines += [f"  return {f.expression(product(spec.shape))};", "}"]
        bytes_ = f.entry.arena_bytes + ALIGNMENT
        return [*lines, "// Bytes of scratch memory that a call needs.",
                f"constexpr std::int64_t {f.name}_workspace_size({f.parameters(bytes_)}) {{",
                f"  return {f.expression(bytes_)};", "}", ""]

    def _only_size(self, f: _Function) -> list[str]:
        return ["// The workspace of the only function.",
                f"constexpr std::int64_t workspace_size({', '.join(f.dim_parameters)}) {{",
                f"  return {f.name}_workspace_size({', '.join(f.dims)});", "}", ""]

    def _wrapper(self, f: _Function) -> list[str]:
        parameters = [*f.dim_parameters, *(
            f"{'' if written else 'const '}{_type(spec)}* {name}"
            for name, spec, written in f.tensors()), "void* workspace"]
        comments = [f"//   {name}: {spec.dtype}[{', '.join(map(str, spec.shape))}]"
                    for name, spec, _ in f.tensors()]
        dims = [f"  const std::int64_t dims[] = {{{', '.join(f.dims)}}};"] if f.dims else []
        arguments = ", ".join(f.inputs) or "nullptr"
        return [
            f"// Computes {f.signature.name}. Arrays are contiguous, row-major; the workspace has",
            f"// {f.name}_workspace_size() bytes and may be anywhere.", *comments,
            f"inline void {f.name}(\n    " + ",\n    ".join(parameters) + ") {", *dims,
            f"  const void* const arguments[] = {{{arguments}}};",
            f"  void* const results[] = {{{', '.join(f.outputs)}}};",
            "  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(workspace);",
            f"  const std::uintptr_t aligned = (address + {ALIGNMENT - 1}) &"
            f" ~static_cast<std::uintptr_t>({ALIGNMENT - 1});",
            f"  {f.entry.symbol}({'dims' if f.dims else 'nullptr'}, arguments, results,",
            "      reinterpret_cast<void*>(aligned));", "}"]

    # -- the example

    def example(self) -> str:
        """The text of main.cc: raw arrays from files, through a signature, to files."""
        usage = [f"{f.signature.name} {' '.join([*f.dims, *f.inputs, *f.outputs])}"
                 for f in self.functions]
        name = self.bundle.name
        return "\n".join([
            f"// An example for {name}.h: raw arrays from files, through the model, to files.",
            f"//   g++ -O2 main.cc {name}.o -o {name}",
            *(f"//   ./{name} {line}" for line in usage),
            "#include <cstdlib>", "#include <cstring>", "#include <fstream>",
            "#include <iostream>", "#include <memory>", "#include <string>", "",
            f'#include "{name}.h"', "", _READ_AND_WRITE, "int main(int argc, char** argv) {",
            "  const std::string signature = argc > 1 ? argv[1] : \"\";",
            *(line for f in self.functions for line in self._branch(f)),
            "  std::cerr << \"usage:\\n\"" + "".join(
                f"\n            << \"  {name} {line}\\n\"" for line in usage) + ";",
            "  return 2;", "}", ""])

    def _branch(self, f: _Function) -> list[str]:
        lines = [f'  if (signature == "{f.signature.name}" && argc =='
                 f" {2 + len(f.dims) + len(f.inputs) + len(f.outputs)}) {{"]
        position = 2
        for dim in f.dims:
            lines.append(f"    const std::int64_t {dim} = std::atoll(argv[{position}]);")
            position += 1
        reads: list[str] = []
        writes: list[str] = []
        for name, spec, written in f.tensors():
            count = f"{self.namespace}::{f.name}_{name}_elements({', '.join(f.dims)})"
            type_ = _type(spec)
            lines.append(f"    const std::unique_ptr<{type_}[]> {name}(\n"
                         f"        new {type_}[{count}]);")
            call = f"(argv[{position}], {name}.get(),\n          {count} * sizeof({type_}))"
            (writes if written else reads).append(f"Write{call}" if written else f"Read{call}")
            position += 1
        size = f"{self.namespace}::{f.name}_workspace_size({', '.join(f.dims)})"
        tensors = ", ".join([*f.dims, *(f"{n}.get()" for n, _, _ in f.tensors())])
        lines.append(f"    const std::unique_ptr<char[]> workspace(new char[{size}]);")
        lines += [f"    if (!{read}) return 1;" for read in reads]
        lines.append(f"    {self.namespace}::{f.name}({tensors}, workspace.get());")
        return [*lines, f"    return {' && '.join(writes)} ? 0 : 1;", "  }"]


_READ_AND_WRITE = '''\
namespace {

bool Read(const char* path, void* data, std::int64_t bytes) {
  std::ifstream file(path, std::ios::binary);
  if (file.read(static_cast<char*>(data), bytes) && file.peek() == EOF) return true;
  std::cerr << path << " is not a file of " << bytes << " bytes\\n";
  return false;
}

bool Write(const char* path, const void* data, std::int64_t bytes) {
  std::ofstream file(path, std::ios::binary);
  if (file.write(static_cast<const char*>(data), bytes)) return true;
  std::cerr << path << " cannot be written\\n";
  return false;
}

}  // namespace
'''


def _type(spec: TensorSpec) -> str:
    dtype: DType = spec.dtype
    if dtype.name not in TYPES:
        raise UnsupportedError(f"{spec} has element type {dtype}, which has no C++ type; pass its"
                               " real and imaginary parts")
    return TYPES[dtype.name]


# -- the check ------------------------------------------------------------------------------------

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")


def check_cpp(bundle: Bundle, files: Sequence[Path], samples: Samples | None = None,
              engine: str = "compiler") -> Check:
    """Build the example with g++, run it with batches of 1, 7 and 100, compare with the bundle."""
    folder = files[0].parent
    worst = (0.0, 0.0)
    sizes: dict[int, None] = {}
    runners = {name: Runner(bundle, name, engine) for name in bundle.signatures}
    with tempfile.TemporaryDirectory(prefix="tfn-cpp-") as scratch:
        program = build_example(bundle, folder, Path(scratch))
        for count in BATCHES:
            for name, inputs in take_samples(bundle, samples, count).items():
                signature = bundle.signatures[name]
                actual = run_example(program, signature, inputs, Path(scratch))
                found = errors(actual, runners[name].run(inputs))
                worst = max(worst[0], found[0]), max(worst[1], found[1])
                sizes[max((len(v) for v in inputs.values() if v.ndim), default=1)] = None
    version = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True,
                             check=True).stdout.strip()
    return Check("g++", version, sum(sizes), *worst, tuple(sizes))


def build_example(bundle: Bundle, folder: Path, scratch: Path, compiler: str = "g++") -> Path:
    """Compile main.cc and link the object; returns the program. `CompileError` if it fails."""
    program = scratch / "example"
    command = [shutil.which(compiler) or compiler, "-std=c++11", "-O1", *WARNINGS,
               str(folder / "main.cc"), str(folder / f"{bundle.name}.o"), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise CompileError(f"{compiler} does not accept the exported {bundle.name}.h:\n"
                           + built.stderr)
    return program


def run_example(program: Path, signature: Signature, inputs: Mapping[str, np.ndarray],
                scratch: Path) -> dict[str, np.ndarray]:
    """Run the example on arrays; `CompileError` when it fails."""
    sizes: dict[str, int] = {}
    paths = []
    for i, spec in enumerate(signature.inputs):
        array = np.ascontiguousarray(inputs[spec.name], spec.dtype.numpy)
        for extent, actual in zip(spec.shape, array.shape, strict=True):
            if isinstance(extent, Dim) and len(extent.terms) == 1:
                (name, coefficient), = extent.terms
                sizes.setdefault(name, (actual - extent.constant) // coefficient)
        paths.append(scratch / f"input{i}")
        array.tofile(paths[-1])
    results = [scratch / f"output{i}" for i in range(len(signature.outputs))]
    command = [str(program), signature.name, *(str(n) for n in sizes.values()),
               *map(str, paths), *map(str, results)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise CompileError(f"the exported program failed with code {ran.returncode}:"
                           f" {ran.stderr.strip()}")
    return {spec.name: np.fromfile(path, spec.dtype.numpy).reshape(
        [d.evaluate(sizes) if isinstance(d, Dim) else d for d in spec.shape])
        for spec, path in zip(signature.outputs, results, strict=True)}
