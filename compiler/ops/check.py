"""The check dialect: expectations inside test programs, as ops and as custom calls.

A check that does not hold raises `CheckError` when the program runs; `recording()` collects all of
them instead. ULP distances order the bit patterns as signed magnitudes, so that -0 and +0 are equal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from ..errors import OpError, TfnError
from ..ir.dtypes import as_dtype
from .custom_call import register, same_types
from .declare import OpDefinition, op

CLOSE_ULP = 3
"""Allowed distance of `expect_close`."""
ALMOST = 1e-4
"""Absolute tolerance of `expect_almost_eq`."""
ALMOST_CALL = 1e-3
"""The same as a custom call."""


class CheckError(TfnError, AssertionError):
    """A program's own expectation does not hold."""


@dataclass
class Outcome:
    """What a check found: `worst` is the largest ULP distance (inf where NaN or infinity differ)."""

    kind: str
    holds: bool
    worst: float
    detail: str = ""


@dataclass
class Record:
    """All checks of a run. `terms`: how many terms the program adds up in an order StableHLO leaves
    open; `expect_close` grants that many roundings of the largest element."""

    outcomes: list[Outcome] = field(default_factory=list)
    terms: int = 1


_STATE = threading.local()


@contextmanager
def recording(terms: int = 1) -> Iterator[Record]:
    """Collect the outcomes of this thread's checks; `terms` as in `Record`."""
    before = getattr(_STATE, "record", None)
    _STATE.record = Record(terms=terms)
    try:
        yield _STATE.record
    finally:
        _STATE.record = before


def ulp_distance(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Distance in units in the last place per element; complex numbers: the larger part.

    NaN is 0 from NaN; any other difference in a non-finite value is infinite.
    """
    if actual.dtype.kind == "c":
        return np.maximum(ulp_distance(actual.real, expected.real),
                          ulp_distance(actual.imag, expected.imag))
    dtype = as_dtype(actual.dtype)
    if not dtype.is_float:
        return np.where(actual == expected, 0.0, np.inf)
    word = f"u{dtype.itemsize}"
    sign = 1 << (dtype.bits - 1)

    def ordered(x):
        bits = np.ascontiguousarray(x).view(word).astype(object if dtype.bits == 64 else np.int64)
        return np.where((bits & sign) != 0, -(bits & (sign - 1)), bits & (sign - 1))

    distance = np.abs(ordered(actual) - ordered(expected)).astype(np.float64)
    wide = np.float64 if dtype.bits == 64 else np.float32
    a, b = actual.astype(wide), expected.astype(wide)
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(finite, distance, np.where(same, 0.0, np.inf))


def _report(kind: str, holds, distance: np.ndarray, actual, expected) -> None:
    holds = np.asarray(holds)
    worst = float(distance.max()) if distance.size else 0.0
    outcome = Outcome(kind, bool(holds.all()), worst)
    if not outcome.holds:
        where = tuple(int(i) for i in np.argwhere(~holds)[0]) if holds.ndim else ()
        outcome.detail = (f"{kind}: {int((~holds).sum())} of {holds.size} elements differ; at"
                          f" {list(where)} got {actual[where]}, expected {expected[where]}"
                          f" ({distance[where]:.4g} ULP)")
    record = getattr(_STATE, "record", None)
    if record is not None:
        record.outcomes.append(outcome)
    elif not outcome.holds:
        raise CheckError(outcome.detail)


def _equal(kind, actual, expected):
    _report(kind, actual == expected, ulp_distance(actual, expected), actual, expected)


def _close(kind, actual, expected, largest, smallest=0.0):
    record = getattr(_STATE, "record", None)
    distance = ulp_distance(actual, expected)
    holds = distance <= largest
    if record is not None and record.terms > 1:
        holds |= _within_rounding(actual, expected, record.terms)
    holds &= distance >= smallest
    _report(kind, holds, distance, actual, expected)


def _within_rounding(actual, expected, terms: int) -> np.ndarray:
    """Could the difference come from adding `terms` numbers in another order?"""
    dtype = actual.real.dtype if actual.dtype.kind == "c" else actual.dtype
    if not as_dtype(dtype).is_float:
        return np.zeros(actual.shape, bool)
    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    a, b = actual.astype(wide), expected.astype(wide)
    size = np.abs(b)[np.isfinite(b)]
    largest = size.max() if size.size else 0.0
    with np.errstate(all="ignore"):
        return np.abs(a - b) <= terms * float(ml_dtypes.finfo(dtype).eps) * largest


def _almost(kind, actual, expected, tolerance):
    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    a, b = actual.astype(wide), expected.astype(wide)
    with np.errstate(all="ignore"):
        holds = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= tolerance)
    _report(kind, holds, ulp_distance(actual, expected), actual, expected)


class _Check(OpDefinition):
    """Compares its operand with a second one, or with the attribute `value`."""

    has_effect = True
    host = True

    def infer(operands, attributes, regions):
        types = {(t.shape, t.dtype) for t in operands}
        value = attributes.get("value")
        if value is not None:
            types.add((value.shape, as_dtype(value.dtype)))
        if len(types) != 1:
            raise OpError(f"a check compares values of one type, got"
                          f" {' and '.join(map(str, operands))}")
        return []

    @classmethod
    def batch(cls, op, operands, batched, batch):
        value = op.attributes.get("value")
        changes = {} if value is None else {
            "value": np.broadcast_to(value, (batch.size, *value.shape))}
        return batch.bind(op, *batch.spread_all(operands, batched), **changes)


def _pair(operands, attributes):
    return operands[0], operands[1] if len(operands) > 1 else attributes["value"]


@op("check.expect_eq")
class ExpectEq(_Check):
    """Equal elements; NaN is not equal to NaN."""

    def evaluate(operands, attributes, regions, result_types):
        _equal("expect_eq", *_pair(operands, attributes))
        return []


@op("check.expect_eq_const")
class ExpectEqConst(_Check):
    """`expect_eq` with a literal."""

    attributes = {"value": "dense"}

    def evaluate(operands, attributes, regions, result_types):
        _equal("expect_eq_const", *_pair(operands, attributes))
        return []


@op("check.expect_almost_eq")
class ExpectAlmostEq(_Check):
    """Within an absolute `tolerance`."""

    attributes = {"tolerance": "opaque"}
    optional = frozenset(attributes)

    def evaluate(operands, attributes, regions, result_types):
        _almost("expect_almost_eq", *_pair(operands, attributes),
                float(attributes.get("tolerance", ALMOST)))
        return []


@op("check.expect_almost_eq_const")
class ExpectAlmostEqConst(_Check):
    """`expect_almost_eq` with a literal."""

    attributes = {"value": "dense", "tolerance": "opaque"}
    optional = frozenset({"tolerance"})

    def evaluate(operands, attributes, regions, result_types):
        _almost("expect_almost_eq_const", *_pair(operands, attributes),
                float(attributes.get("tolerance", ALMOST)))
        return []


@op("check.expect_close")
class ExpectClose(_Check):
    """Between `min_ulp_difference` and `max_ulp_difference` ULP apart."""

    attributes = {"max_ulp_difference": "opaque", "min_ulp_difference": "opaque"}
    optional = frozenset(attributes)

    def evaluate(operands, attributes, regions, result_types):
        _close("expect_close", *operands, int(attributes.get("max_ulp_difference", CLOSE_ULP)),
               int(attributes.get("min_ulp_difference", 0)))
        return []


def _eq_call(operands, attributes, result_types):
    """`@check.eq`: one i1 that tells whether all elements are equal."""
    actual, expected = operands
    _equal("check.eq", actual, expected)
    return [np.asarray((actual == expected).all())]


def _call(run):
    def evaluate(operands, attributes, result_types):
        run(*operands)
        return []

    return evaluate


register("check.expect_eq", _call(lambda a, b: _equal("expect_eq", a, b)), check=same_types)
register("check.expect_close", _call(lambda a, b: _close("expect_close", a, b, CLOSE_ULP)),
         check=same_types)
register("check.expect_almost_eq", _call(lambda a, b: _almost("expect_almost_eq", a, b, ALMOST_CALL)),
         check=same_types)
register("check.eq", _eq_call, check=same_types)
