"""Scaled dot-product attention, as the composite `tfn.attention`."""

from __future__ import annotations

import math

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.core import Op
from ..ir.dtypes import F32
from ..numpy.elementwise import largest_of
from ..numpy.promote import ArrayLike, Value, asarray, convert, dtype_of, floating, shape_text
from ..ops.control import DERIVATIVES, composite
from ..trace.core import replay
from ..trace.grad import vjp
from .activation import softmax


def dot_product_attention(query: ArrayLike, key: ArrayLike, value: ArrayLike,
                          bias: ArrayLike | None = None, mask: ArrayLike | None = None,
                          scale: float | None = None, is_causal: bool = False,
                          soft_cap: float | None = None) -> Value:
    """softmax(query @ key * scale + bias) @ value.

    query (batch, T, heads, d); key and value (batch, S, groups, d) where groups divides heads;
    bias and boolean mask broadcast to (batch, heads, T, S). Scores are computed in f32. With a
    `soft_cap` c > 0 they become c tanh(scores / c) before bias and masks (Gemma 2, section 2).
    """
    if soft_cap is not None and not soft_cap > 0:
        raise OpError(f"attention: soft_cap must be above 0, got {soft_cap}", user_location())
    query, key, value = floating(query), floating(key), floating(value)
    heads, groups = query.shape[2], key.shape[2]
    if heads % groups:
        raise OpError(f"attention: {heads} query heads do not divide into {groups} key heads"
                      f" (query {shape_text(query.shape)}, key {shape_text(key.shape)})",
                      user_location())
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    extra = [v for v in (bias, mask) if v is not None]
    has_bias, has_mask = bias is not None, mask is not None

    def attend(q, k, v, *rest):
        given = iter(rest)
        return _attend(q, k, v, next(given) if has_bias else None,
                       next(given) if has_mask else None, scale, is_causal, soft_cap)

    operands = (query, key, value, *map(asarray, extra))
    if soft_cap is not None:
        # Who knows the composite by its name knows no caps.
        return attend(*operands)
    return composite("tfn.attention", attend, *operands, scale=float(scale), is_causal=is_causal,
                     bias=has_bias, mask=has_mask)


def _derivative(op: Op):
    """The rule `vjp` of attention as a composite of its own, which computes the scores again."""
    given = op.attributes["composite_attributes"]
    if given["bias"]:
        return None  # Its cotangent has as many elements as the scores.

    def backward(*operands):
        *inputs, ct = operands
        _, pull = vjp(lambda *qkv: replay(op.attributes["decomposition"], [*qkv, *inputs[3:]])[0],
                      *inputs[:3])
        return list(pull(ct))

    def rule(cotangents, op, operands, results):
        back = composite("tfn.attention_backward", backward, *operands, cotangents[0], **given)
        return [*back, *[None] * (len(operands) - 3)]

    return rule


DERIVATIVES["tfn.attention"] = _derivative


def _attend(q: Value, k: Value, v: Value, bias, mask, scale: float, is_causal: bool,
            soft_cap: float | None = None) -> Value:
    repeats = q.shape[2] // k.shape[2]
    if repeats > 1:
        k, v = tnp.repeat(k, repeats, 2), tnp.repeat(v, repeats, 2)
    scores = tnp.einsum("btnh,bsnh->bnts", convert(q, F32) if dtype_of(q).bits == 16 else q,
                        convert(k, F32) if dtype_of(k).bits == 16 else k) * scale
    if soft_cap is not None:
        scores = tnp.tanh(scores / soft_cap) * soft_cap
    if bias is not None:
        scores = scores + bias
    lowest = -0.7 * largest_of(dtype_of(scores))
    if mask is not None:
        scores = tnp.where(mask, scores, lowest)
    if is_causal:
        rows, columns = scores.shape[-2:]
        allowed = tnp.iota((rows, columns), 0) >= tnp.iota((rows, columns), 1)
        scores = tnp.where(allowed, scores, lowest)
    weights = convert(softmax(scores, -1), dtype_of(v))
    return tnp.einsum("bnts,bsnh->btnh", weights, v)
