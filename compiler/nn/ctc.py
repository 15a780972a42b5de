"""Connectionist temporal classification (Graves et al., 2006): labels without their times.

A path names a class for every step, one of them a blank. Its labels are the path without repetitions
and blanks; the probability of labels is the sum over their paths, computed in logarithms.

What walks through time is compiled once per signature when it is called eagerly: step by step it would
be traced and interpreted at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .. import numpy as tnp
from ..ir.dtypes import F32, I32
from ..numpy.promote import ArrayLike, Value, asarray, convert, dtype_of, floating
from ..trace.batch import vmap
from ..trace.control import scan
from ..trace.core import Array, current_graph
from ..trace.jit import Jitted, jit
from .activation import log_softmax

IMPOSSIBLE = -1e5
"""The logarithm of what cannot be: finite, so that gradients are."""

PADDING = -1
"""What follows the last label of a decoded sequence."""


def _log_probabilities(logits: ArrayLike) -> Value:
    logits = floating(logits)
    return log_softmax(convert(logits, F32) if dtype_of(logits).bits < 32 else logits)


def ctc_loss(labels: ArrayLike, logits: ArrayLike, label_length: ArrayLike, logit_length: ArrayLike,
             blank: int = 0) -> Value:
    """-log of the probability of `labels` (batch, N) after `logits` (batch, T, classes), for each of
    the batch; `label_length` and `logit_length` (batch) say how many of them count."""
    return _at_once(_loss, (labels, logits, label_length, logit_length), blank)


def _at_once(function: Callable[..., Any], arrays: tuple[ArrayLike, ...], *static: int) -> Any:
    """`function(*arrays, *static)`, as a compiled program unless it becomes part of another one."""
    given = [asarray(a) for a in arrays]
    if current_graph() is None and all(isinstance(a, Array) for a in given):
        return _compiled(function, len(given), len(static))(*given, *static)
    return function(*given, *static)


@cache
def _compiled(function: Callable[..., Any], arrays: int, static: int) -> Jitted:
    return jit(function, static_argnums=tuple(range(arrays, arrays + static)))


def _loss(labels: Value, logits: Value, label_length: Value, logit_length: Value, blank: int) -> Value:
    labels = tnp.maximum(convert(asarray(labels), I32), 0)
    count = convert(asarray(label_length), I32)
    length = convert(asarray(logit_length), I32)
    logs = _log_probabilities(logits)
    batch, steps, _ = logs.shape
    states = 2 * labels.shape[1] + 1
    # A blank before, between and after the labels.
    symbols = tnp.stack([tnp.full_like(labels, blank), labels], -1).reshape((batch, states - 1))
    symbols = tnp.pad(symbols, ((0, 0), (0, 1)), constant_values=blank)
    emitted = tnp.take_along_axis(logs, tnp.broadcast_to(
        symbols[:, None, :], (batch, steps, states)), -1)
    emitted = tnp.moveaxis(emitted, 1, 0)
    # A blank between two labels may be left out unless they are equal.
    free = tnp.logical_and(symbols[:, 2:] != symbols[:, :-2],
                           (np.arange(2, states) % 2 == 1)[None, :])
    free = tnp.pad(free, ((0, 0), (min(2, states), 0)))[:, :states]

    def before(alpha: Value, by: int) -> Value:
        return tnp.pad(alpha, ((0, 0), (by, 0)), constant_values=IMPOSSIBLE)[:, :states]

    def step(alpha, row):
        t, emission = row
        come = tnp.logaddexp(alpha, before(alpha, 1))
        come = tnp.where(free, tnp.logaddexp(come, before(alpha, 2)), come)
        return tnp.where((t < length)[:, None], come + emission, alpha), None

    start = tnp.where(np.arange(states)[None, :] < 2, emitted[0], IMPOSSIBLE)
    times = np.arange(1, steps, dtype=np.int32)
    alpha, _ = scan(step, convert(start, dtype_of(logs)), (times, emitted[1:]))
    last = tnp.take_along_axis(alpha, (2 * count)[:, None], -1)[:, 0]
    label = tnp.take_along_axis(alpha, tnp.maximum(2 * count - 1, 0)[:, None], -1)[:, 0]
    return -tnp.where(count > 0, tnp.logaddexp(last, label), last)


def ctc_greedy_decode(inputs: ArrayLike, length: ArrayLike, merge_repeated: bool = True,
                      blank: int = 0) -> tuple[Value, Value]:
    """The labels of the path with the best class at every step, as (1, batch, T) with -1 behind them,
    and the sum of its negative scores (batch, 1)."""
    inputs, length = floating(inputs), convert(asarray(length), I32)
    steps = inputs.shape[1]
    valid = np.arange(steps)[None, :] < length[:, None]
    best = tnp.where(valid, tnp.argmax(inputs, -1), blank)
    scores = -tnp.sum(tnp.where(valid, tnp.max(inputs, -1), 0), 1, keepdims=True)
    kept = best != blank
    if merge_repeated:
        again = tnp.pad(best[:, 1:] == best[:, :-1], ((0, 0), (1, 0)))
        kept = tnp.logical_and(kept, tnp.logical_not(again))
    order = tnp.argsort(tnp.where(kept, np.arange(steps)[None, :], steps), -1)
    decoded = tnp.take_along_axis(tnp.where(kept, best, PADDING), order, -1)
    return convert(decoded, I32)[None], scores


def ctc_beam_search_decode(inputs: ArrayLike, length: ArrayLike, beam_width: int = 100,
                           top_paths: int = 1, blank: int = 0) -> tuple[Value, Value]:
    """The `top_paths` most probable label sequences found by keeping `beam_width` of them after each
    step: (top_paths, batch, T) with -1 behind them, and log-probabilities (batch, top_paths)."""
    return _at_once(_beam_search, (inputs, length), beam_width, top_paths, blank)


def _beam_search(inputs: Value, length: Value, beam_width: int, top_paths: int, blank: int
                 ) -> tuple[Value, Value]:
    logs, length = _log_probabilities(inputs), convert(asarray(length), I32)
    _, steps, classes = logs.shape
    width = max(beam_width, top_paths)

    def search(logs, length):
        low = tnp.full((width,), -np.inf, dtype=logs.dtype)
        ended = tnp.where(np.arange(width) == 0, 0, low)
        start = (tnp.full((width, steps), PADDING, dtype="int32"), tnp.zeros((width,), dtype="int32"),
                 convert(ended, dtype_of(logs)), low)

        def step(state, row):
            t, log = row
            new = _extend(state, log, width, classes, blank)
            return tuple(tnp.where(t < length, n, s) for n, s in zip(new, state, strict=True)), None

        (paths, _, blanks, others), _ = scan(step, start, (np.arange(steps, dtype=np.int32), logs))
        scores, order = tnp.top_k(tnp.logaddexp(blanks, others), top_paths)
        return tnp.take(paths, order, 0), scores

    paths, scores = vmap(search)(logs, length)
    return tnp.swapaxes(paths, 0, 1), scores


def _extend(state: tuple[Value, Value, Value, Value], log: Value, width: int, classes: int, blank: int
            ) -> tuple[Value, Value, Value, Value]:
    """The best beams after one more step.

    A beam is a label sequence of `sizes` labels; `blanks` and `others` are the log-probabilities of
    its paths that end in a blank or in its last label.
    """
    paths, sizes, blanks, others = state
    total = tnp.logaddexp(blanks, others)
    last = tnp.take_along_axis(paths, tnp.maximum(sizes - 1, 0)[:, None], 1)[:, 0]
    some = sizes > 0
    stay_blank = total + log[blank]
    stay = tnp.where(some, others + tnp.take(log, tnp.maximum(last, 0)), -np.inf)
    # The last label once more is a new label only after a blank.
    names = np.arange(classes)[None, :]
    longer = tnp.where(names == last[:, None], blanks[:, None], total[:, None]) + log[None, :]
    longer = tnp.where(names == blank, -np.inf, longer)
    # Where beam j is beam i with one label more, i's extension adds to j.
    steps = np.arange(paths.shape[1])
    shorter = tnp.where(steps == (sizes - 1)[:, None], PADDING, paths)
    child = tnp.logical_and(tnp.all(paths[:, None, :] == shorter[None, :, :], -1),
                            tnp.logical_and(some[None, :], total[:, None] > -np.inf))
    added = tnp.take(longer, tnp.maximum(last, 0), 1)
    stay = tnp.logaddexp(stay, tnp.max(tnp.where(child, added, -np.inf), 0))
    taken = tnp.any(tnp.logical_and(child[:, :, None], last[None, :, None] == names[None]), 1)
    longer = tnp.where(taken, -np.inf, longer)
    scores = tnp.concatenate([tnp.logaddexp(stay_blank, stay), longer.reshape(-1)])
    _, chosen = tnp.top_k(scores, width)
    kept = chosen < width
    parent = tnp.where(kept, chosen, (chosen - width) // classes)
    label = tnp.where(kept, PADDING, (chosen - width) % classes)
    old, size = tnp.take(paths, parent, 0), tnp.take(sizes, parent)
    grown = tnp.where(steps == size[:, None], label[:, None], old)
    return (convert(tnp.where(kept[:, None], old, grown), I32),
            convert(tnp.where(kept, size, size + 1), I32),
            tnp.where(kept, tnp.take(stay_blank, parent), -np.inf),
            tnp.where(kept, tnp.take(stay, parent), tnp.take(scores, chosen)))
