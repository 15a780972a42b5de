"""Cross-entropies in their stable forms, per example (no mean over the batch)."""

from __future__ import annotations

from .. import numpy as tnp
from ..ir.dtypes import I1
from ..numpy.promote import ArrayLike, Value, asarray, floating
from .activation import log_softmax


def softmax_cross_entropy(logits: ArrayLike, targets: ArrayLike, axis: int = -1) -> Value:
    """-sum(targets * log_softmax(logits)) over `axis`; `targets` are probabilities."""
    return -tnp.sum(targets * log_softmax(logits, axis), axis)


def sparse_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike, axis: int = -1) -> Value:
    """-log_softmax(logits) at the integer `labels` (the shape of `logits` without `axis`)."""
    return -pick(log_softmax(logits, axis), labels, axis)


def sigmoid_cross_entropy(logits: ArrayLike, targets: ArrayLike) -> Value:
    """-targets * log(sigmoid(x)) - (1 - targets) * log(1 - sigmoid(x)), elementwise."""
    x, z = floating(logits), floating(targets)
    return tnp.maximum(x, 0) - x * z + tnp.log1p(tnp.exp(-tnp.abs(x)))


def pick(values: ArrayLike, labels: ArrayLike, axis: int = -1) -> Value:
    """`values` at the integer `labels` along `axis`; 0 where a label is out of range.

    A select under a sum: it fuses with its producer, and its gradient needs no scatter.
    """
    values, labels = floating(values), asarray(labels)
    axis %= len(values.shape)
    chosen = tnp.one_hot(labels, values.shape[axis], axis, I1)
    return tnp.sum(tnp.where(chosen, values, 0), axis)
