"""Elementary functions as LLVM text, small enough to inline so that loops over them vectorise.

`function_name` gives the symbol, `definitions` its text with all it uses. f32 functions are within
1.4 ULP of the true value (all but `expm1` within 1.1) and f64 functions within 2, over the full range
with subnormals, infinities and NaN: `tfn.tools.accuracy` measures it. Nothing refers to a C library.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from .mathlib_double import DOUBLE
from .mathlib_single import SINGLE
from .minifloat import MINI

_SOURCES: dict[str, Callable[[], str]] = {**SINGLE, **DOUBLE, **MINI}
THROUGH_DOUBLE = frozenset({"sin", "cos", "tan", "cbrt", "atan2", "pow", "fmod"})
"""Functions whose f32 version computes in f64."""

_SYMBOL = re.compile(r"@((?:tfn|llvm)\.[\w.]+)")


def function_name(name: str, is_f64: bool) -> str:
    """The symbol that computes `name` on f64 or f32."""
    return f"tfn.{name}.f{64 if is_f64 else 32}"


def definitions(names: set[str]) -> str:
    """LLVM text that defines the named symbols, what they use, and declares their intrinsics."""
    pending, wanted = list(names), set()
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending += [u for u in _used(name) if u in _SOURCES]
    intrinsics = {u for name in wanted for u in _used(name) if u.startswith("llvm.")}
    return "\n".join([*(_declaration(i) for i in sorted(intrinsics)),
                      *(_source(name) for name in sorted(wanted))])


@functools.cache
def _source(name: str) -> str:
    return _SOURCES[name]()


@functools.cache
def _used(name: str) -> tuple[str, ...]:
    return tuple(sorted(set(_SYMBOL.findall(_source(name))) - {name}))


_ARGUMENTS = {"fma": 3, "copysign": 2}
"""Intrinsics that take more than one argument."""


def _declaration(intrinsic: str) -> str:
    _, short, width = intrinsic.split(".")
    kind = "double" if width == "f64" else "float"
    return f"declare {kind} @{intrinsic}({', '.join([kind] * _ARGUMENTS.get(short, 1))})"
