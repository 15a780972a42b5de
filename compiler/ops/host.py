"""Ops that run Python: callbacks, and the report of the NaN checks."""

from __future__ import annotations

import threading

import numpy as np

from ..errors import NanError, OpError, user_location
from ..ir.core import Location, TensorType
from ..ir.dtypes import as_dtype
from .declare import Factors, OpDefinition, op


@op("tfn.callback")
class Callback(OpDefinition):
    """Call a Python function; with `effect` the call is kept and keeps its place."""

    host = True
    attributes = {"function": "opaque", "types": "result_types", "effect": "opaque"}

    def infer(operands, attributes, regions):
        return list(attributes["types"])

    def evaluate(operands, attributes, regions, result_types):
        # Copies, which may be kept: a program uses its memory again, and an array does not change.
        results = list(attributes["function"](*map(np.array, operands)))
        if len(results) != len(result_types):
            raise OpError(f"the callback returned {len(results)} arrays, but {len(result_types)} were"
                          " declared")
        for i, (result, declared) in enumerate(zip(results, result_types, strict=True)):
            found = np.asarray(result)
            if found.shape != tuple(declared.shape) or not np.can_cast(
                    found.dtype, declared.dtype.numpy, "same_kind"):
                raise OpError(f"array {i} the callback returned is {found.dtype}{list(found.shape)},"
                              f" but {declared} was declared")
        return results

    def batch(op, operands, batched, batch):
        return batch.each(op, operands, batched)

    def factors(op):
        return Factors([(None,) * len(v.shape) for v in op.operands],
                       [(None,) * len(v.shape) for v in op.results])


@op("tfn.check_finite")
class CheckFinite(OpDefinition):
    """Raise for the first flag that is set; `makers` are (op name, result type, location) per flag. An
    argument's name is a quoted string, and its place that of the call."""

    host = True
    has_effect = True
    attributes = {"makers": "opaque", "nans": "opaque", "infs": "opaque"}

    def infer(operands, attributes, regions):
        return []

    def evaluate(operands, attributes, regions, result_types):
        for flag, (name, type, location) in zip(operands, attributes["makers"], strict=True):
            if flag:
                raise NanError(message(name, type, attributes["nans"], attributes["infs"]),
                               location or user_location())
        return []


class Checks(threading.local):
    """What the checks look for, in this thread (see `debug.check_nans`)."""

    nans = False
    infs = False


CHECKS = Checks()

Maker = tuple[str, TensorType, Location | None]


def holds(x: np.ndarray, nans: bool, infs: bool) -> bool:
    """Does an array hold what is looked for?"""
    if not as_dtype(x.dtype).is_inexact:
        return False
    with np.errstate(all="ignore"):
        return bool((nans and np.isnan(x).any()) or (infs and np.isinf(x).any()))


def message(name: str, type: TensorType, nans: bool, infs: bool) -> str:
    what = " or ".join(w for w, asked in (("a NaN", nans), ("an infinity", infs)) if asked)
    if name.startswith("argument"):
        return f"the {name}, {type}, holds {what} before anything is computed"
    return (f"{name} made {what}, in {type}, which none of its operands holds; look at them with"
            " tfn.debug.print")
