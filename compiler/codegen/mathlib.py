"""Elementary functions as LLVM text, small enough to inline so that loops over them vectorise.

`function_name` gives the symbol, `definitions` its text with all it uses. f32 functions are within
1.4 ULP of the true value (all but `expm1` within 1.1) and f64 functions within 2, over the full range
with subnormals, infinities and NaN: `tfn.tools.accuracy` measures it. Nothing refers to a C library.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

from .mathlib_circle import circular, circular_far
from .mathlib_double import DOUBLE
from .mathlib_gelu import GELU, GELU_BY_WIDTH
from .mathlib_gelu_table import gelu, slope
from .mathlib_single import SINGLE, SINGLE_BY_WIDTH
from .mathlib_table import tanh
from .minifloat import MINI

_SOURCES: dict[str, Callable[[], str]] = {**SINGLE, **GELU, **DOUBLE, **MINI}
_BY_WIDTH: dict[str, Callable[[int], str]] = {**SINGLE_BY_WIDTH, **GELU_BY_WIDTH}
_BRANCHING: dict[str, Callable[[int, Mapping[int, str] | None], str]] = {
    f"tfn.{name}": functools.partial(circular, name) for name in ("sin", "cos", "tan")}
"""Functions of f32 that branch, and so are functions of vectors, too."""
_TABLES: dict[str, Callable[[int, Mapping[int, str] | None], str]] = {
    "tfn.tanh": tanh, "tfn.gelu": gelu, "tfn.gelu_slope": slope}
"""Functions of f32 that are functions of vectors where those have 512 bits."""
_LOOPS: dict[str, Callable[[int], str]] = {
    f"tfn.{name}.far": functools.partial(circular_far, name) for name in ("sin", "cos", "tan")}
"""What functions of vectors call."""
THROUGH_DOUBLE = frozenset({"cbrt", "atan2", "pow", "fmod"})
"""Functions whose f32 version computes in f64 and is inlined."""

_SYMBOL = re.compile(r"@((?:tfn|llvm)\.[\w.]+)")
_VECTOR = re.compile(r"v(\d+)f32")


def function_name(name: str, is_f64: bool) -> str:
    """The symbol that computes `name` on f64 or f32."""
    return f"tfn.{name}.f{64 if is_f64 else 32}"


def definitions(names: set[str], bits: int) -> str:
    """LLVM text that defines the named symbols, what they use, and declares their intrinsics, for
    vectors of so many bits."""
    pending, wanted, kept = list(names), set[str](), set[str]()
    while pending:
        name = pending.pop()
        if name in wanted:
            continue
        wanted.add(name)
        variants = _variants(name, bits).values()
        kept.update(variants)
        pending += [*variants, *(u for u in _used(name, bits) if _is_symbol(u))]
    intrinsics = {u for name in wanted for u in _used(name, bits) if u.startswith("llvm.")}
    return "\n".join([*(_declaration(i) for i in sorted(intrinsics)),
                      *(_source(name, bits) for name in sorted(wanted)), *_until_vectorized(kept)])


def _until_vectorized(kept: set[str]) -> list[str]:
    """Nothing calls vector functions before loops are vectorised, LLVM must not drop them."""
    if not kept:
        return []
    members = ", ".join(f"ptr @{name}" for name in sorted(kept))
    return [f'@llvm.compiler.used = appending global [{len(kept)} x ptr] [{members}],'
            ' section "llvm.metadata"']


def _vectors(bits: int) -> dict[str, Callable[[int, Mapping[int, str] | None], str]]:
    return _BRANCHING | _TABLES if bits == 512 else _BRANCHING


def _variants(name: str, bits: int) -> dict[int, str]:
    """The vector functions for an f32 function, by their lanes: as many as fit a vector, or as numbers
    of 64 bits in the same loop allow."""
    base, _, kind = name.rpartition(".")
    if base not in _vectors(bits) or kind != "f32":
        return {}
    return {n: f"{base}.v{n}f32" for n in (bits // 32, bits // 64)}


def _is_symbol(name: str) -> bool:
    """Is it a function by itself, not LLVM's nor a part of another?"""
    return name in _SOURCES or name in _BY_WIDTH or name.rpartition(".")[0] in {
        *_BRANCHING, *_TABLES, *_LOOPS}


@functools.cache
def _source(name: str, bits: int) -> str:
    base, _, kind = name.rpartition(".")
    vector = _VECTOR.fullmatch(kind)
    if base in _LOOPS and vector:
        return _LOOPS[base](int(vector[1]))
    if base in _vectors(bits) and kind != "f64":
        return _vectors(bits)[base](int(vector[1]) if vector else 1, _variants(name, bits))
    return _BY_WIDTH[name](bits) if name in _BY_WIDTH else _SOURCES[name]()


@functools.cache
def _used(name: str, bits: int) -> tuple[str, ...]:
    own = {name, "llvm.compiler.used"}
    return tuple(sorted(set(_SYMBOL.findall(_source(name, bits))) - own))


_LOOK_UPS = {
    "llvm.x86.avx512.permvar.sf.512": "<16 x float>, <16 x i32>",
    "llvm.x86.avx512.vpermi2var.ps.512": "<16 x float>, <16 x i32>, <16 x float>"}
"""Intrinsics that look numbers up in registers, and the types of their arguments."""

_ARGUMENTS = {"fma": 3, "copysign": 2}
"""Intrinsics that take more than one argument."""


def _declaration(intrinsic: str) -> str:
    if ".ldexp." in intrinsic:
        return f"declare float @{intrinsic}(float, i32)"
    if intrinsic in _LOOK_UPS:
        return f"declare <16 x float> @{intrinsic}({_LOOK_UPS[intrinsic]})"
    _, *short, width = intrinsic.split(".")
    lanes, _, element = width.removeprefix("v").rpartition("f" if "f" in width else "i")
    kind = {"64": "double", "32": "float", "1": "i1"}[element]
    operand = f"<{lanes} x {kind}>" if lanes else kind
    result = kind if short[0] == "vector" else operand
    return f"declare {result} @{intrinsic}({', '.join([operand] * _ARGUMENTS.get(short[0], 1))})"
