"""Ops that apply traced functions: switch, scan, and functions with derivatives of their own.

They are what reverse-mode differentiation sees; the compiler expands them to `case`, `while` or the
function's body. Their functions have no free values: what a branch or a body uses from outside is an
operand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.core import Function, Op, TensorType, Value
from ..trace.core import bind, free_values, replay, replay_ops, trace, trace_region
from .declare import Factors, OpDefinition, op, require


def _list(results: Any) -> list[Any]:
    return results if isinstance(results, list) else [results]


def _zeros(type: TensorType) -> Any:
    return bind("stablehlo.broadcast_in_dim", np.zeros((), type.dtype.numpy), shape=type.shape,
                broadcast_dimensions=())


def _seeds(cotangents: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """Cotangents with zeros where there is none, of the inexact results only."""
    return [_zeros(r.type) if ct is None else ct
            for ct, r in zip(cotangents, results, strict=True) if r.type.dtype.is_inexact]


def _spread(found: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Entries of the inexact values, None for the others."""
    rest = iter(found)
    return [next(rest) if v.type.dtype.is_inexact else None for v in values]


def pull(function: Callable[..., Sequence[Any]], operands: Sequence[Any], cotangents: Sequence[Any]
         ) -> list[Any]:
    """Cotangents of the inexact operands of a flat function, given those of its inexact results."""
    from ..trace.grad import Pullback

    traced, captures = trace(lambda *a: list(function(*a)), [o.type for o in operands])
    wanted = [i for i, o in enumerate(operands) if o.type.dtype.is_inexact]
    back = Pullback(traced, [*operands, *captures], wanted)
    rest = iter(cotangents)
    return back([next(rest) if r.dtype.is_inexact else None for r in traced.returns])


def pull_all(function: Callable[..., Sequence[Any]], operands: Sequence[Any],
             cotangents: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """A `vjp` rule by that of a function with the same results."""
    return _spread(pull(function, operands, _seeds(cotangents, results)), operands)


def push(function: Callable[..., Sequence[Any]], operands: Sequence[Any], tangents: Sequence[Any]
         ) -> tuple[list[Any], list[Any]]:
    """Results of a flat function and the tangents of its inexact results; `tangents` are those of the
    inexact operands."""
    from ..trace.forward import push_forward

    traced, captures = trace(lambda *a: list(function(*a)), [o.type for o in operands])
    given = _spread(tangents, operands)
    results, found = push_forward(traced, [*operands, *captures], [*given, *[None] * len(captures)])
    return results, [_zeros(r.type) if t is None else t
                     for r, t in zip(results, found, strict=True) if r.type.dtype.is_inexact]


def for_batch(batch, function: Function, batched: Sequence[bool], wanted: Sequence[bool] = ()
              ) -> tuple[Function, list[bool]]:
    """A function for all examples at once, given which arguments differ between them, and which results
    do; those `wanted` do in any case."""
    found: list[bool] = []

    def run(*arguments):
        results, flags = batch.inline(function, arguments, batched)
        found[:] = [f or w for f, w in zip(flags, wanted or [False] * len(flags), strict=True)]
        return [x if f or not w else batch.spread(x)
                for x, f, w in zip(results, flags, found, strict=True)]

    types = [a.type.with_shape((batch.size, *a.shape)) if b else a.type
             for a, b in zip(function.arguments, batched, strict=True)]
    return trace(run, types, function.name)[0], found


def rule_for_batch(batch, rule: Callable[..., Sequence[Any]], batched: Sequence[bool],
                   given: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
    """`rule(*given)`, a rule for one example, for all: its results, which have a dim for the examples
    where `wanted`, and are summed over them elsewhere. None stays None."""
    from ..trace.axis import named
    from ..trace.batch import Batch
    from .reduction import reduce_sum

    present: list[bool] = []

    def flat(*values):
        made = rule(*values)
        present[:] = [m is not None for m in made]
        return [m for m in made if m is not None]

    types = [g.type.with_shape(g.shape[1:]) if b else g.type
             for g, b in zip(given, batched, strict=True)]
    with named(batch.name, batch.size):
        traced, captures = trace(flat, types, "rule")
    inner = Batch(batch.size, batch.name)
    results, found = inner.inline(traced, [*given, *captures], [*batched, *[False] * len(captures)])
    rest = iter(zip(results, found, strict=True))
    out: list[Any] = []
    for there, want in zip(present, wanted, strict=True):
        if not there:
            out.append(None)
            continue
        x, flag = next(rest)
        whole = batch.spread(x, flag)
        out.append(whole if want else reduce_sum(whole, (0,)))
    return out


def _bound(op, results: Any, batched: Sequence[bool]) -> list[Any]:
    from .control import shared_unless

    return shared_unless(_list(results), batched)


class _Functional(OpDefinition):
    def factors(op):
        return Factors([(None,) * len(v.shape) for v in op.operands],
                       [(None,) * len(v.shape) for v in op.results])


# -- switch ---------------------------------------------------------------------------------------

@op("tfn.switch")
class Switch(_Functional):
    """Branch `index` (clamped) on the other operands."""

    attributes = {"branches": "opaque"}

    def infer(operands, attributes, regions):
        return list(attributes["branches"][0].result_types)

    def decompose(operands, attributes, regions):
        index, *rest = operands
        branches = [trace_region(lambda b=b: replay(b, rest), []) for b in attributes["branches"]]
        return _list(bind("stablehlo.case", index, regions=branches))

    def vjp(cotangents, op, operands, results):
        index, *rest = operands
        seeds = _seeds(cotangents, results)
        count = len(rest)
        branches = tuple(
            trace(lambda *a, b=b: pull(lambda *x: replay(b, x), a[:count], a[count:]),
                  [v.type for v in (*rest, *seeds)], "branch_vjp")[0]
            for b in op.attributes["branches"])
        if not branches[0].returns:
            return [None] * len(operands)
        found = _list(bind("tfn.switch", index, *rest, *seeds, branches=branches))
        return [None, *_spread(found, rest)]

    def batch(op, operands, batched, batch):
        if batched[0]:
            return batch.expand(op, operands, batched)
        branches = op.attributes["branches"]
        columns = zip(*(for_batch(batch, b, batched[1:])[1] for b in branches), strict=True)
        wanted = [any(c) for c in columns]
        made = tuple(for_batch(batch, b, batched[1:], wanted)[0] for b in branches)
        return _bound(op, bind("tfn.switch", *operands, branches=made), wanted)

    def jvp(tangents, op, operands, results):
        index, *rest = operands
        given = [_zeros(v.type) if t is None else t
                 for t, v in zip(tangents[1:], rest, strict=True) if v.type.dtype.is_inexact]
        count = len(rest)
        branches = tuple(
            trace(lambda *a, b=b: push(lambda *x: replay(b, x), a[:count], a[count:])[1],
                  [v.type for v in (*rest, *given)], "branch_jvp")[0]
            for b in op.attributes["branches"])
        if not branches[0].returns:
            return [None] * len(results)
        found = _list(bind("tfn.switch", index, *rest, *given, branches=branches))
        return _spread(found, results)


@dataclass(frozen=True)
class Conditional:
    """An if or case as a switch, for reverse mode: what its branches refer to are operands."""

    operands: list[Value]
    results: Sequence[Value]
    attributes: dict[str, Any]
    location: Any
    definition: Any = Switch
    name: str = "tfn.switch"


CONDITIONALS = frozenset({"stablehlo.case", "stablehlo.if"})


def conditional(op: Op, operands: Sequence[Any], environment: Mapping[Value, Any]
                ) -> tuple[Conditional, list[Any]]:
    """An op of `CONDITIONALS` as a switch, and the operands of that; `environment` has what the
    regions refer to."""
    free = list(dict.fromkeys(v for r in op.regions for v in free_values(r)))

    def branch(region):
        def run(*values):
            inner = dict(zip(free, values, strict=True))
            replay_ops(region.ops, inner)
            return [inner[v] for v in region.returns]

        return trace(run, [v.type for v in free], "branch")[0]

    (choice,) = operands
    branches = [branch(r) for r in op.regions]
    if op.name == "stablehlo.if":
        index = bind("stablehlo.select", choice, np.int32(0), np.int32(1))
    else:
        # An index out of range is the last branch.
        last = np.int32(len(branches) - 1)
        below = bind("stablehlo.compare", choice, np.int32(0), comparison_direction="LT")
        index = bind("stablehlo.select", below, last, bind("stablehlo.minimum", choice, last))
    values = [op.operands[0], *free]
    return (Conditional(values, op.results, {"branches": tuple(branches)}, op.location),
            [index, *(environment[v] for v in free)])


# -- scan -----------------------------------------------------------------------------------------

def _row(x, at):
    sizes = (1, *x.shape[1:])
    starts = [at, *[np.int32(0)] * (len(x.shape) - 1)]
    return bind("stablehlo.reshape", bind("stablehlo.dynamic_slice", x, *starts, slice_sizes=sizes),
                shape=tuple(sizes[1:]))


def _put(x, row, at):
    starts = [at, *[np.int32(0)] * (len(x.shape) - 1)]
    return bind("stablehlo.dynamic_update_slice", x,
                bind("stablehlo.reshape", row, shape=(1, *row.shape)), *starts)


@op("tfn.scan")
class Scan(_Functional):
    """Fold `body` over rows. Operands: constants, the carry, the inputs; results: the last carry, and
    the outputs of each step as rows. `body(constants, carry, rows) -> (carry, row outputs)`."""

    attributes = {"body": "opaque", "constants": "opaque", "carries": "opaque", "length": "opaque",
                  "reverse": "opaque"}

    def infer(operands, attributes, regions):
        body: Function = attributes["body"]
        n, k = attributes["constants"], attributes["carries"]
        made = list(body.result_types)
        for i, (given, new) in enumerate(zip(operands[n:n + k], made[:k], strict=True)):
            require(given == new, "carry", f"scan's carry {i} is {given} before a step and {new}"
                    " after it; both must be one type")
        return made[:k] + [TensorType((attributes["length"], *t.shape), t.dtype) for t in made[k:]]

    def decompose(operands, attributes, regions):
        from .. import numpy  # noqa: F401  (defines the operators of traced values)

        body: Function = attributes["body"]
        n, k, length = attributes["constants"], attributes["carries"], attributes["length"]
        constants, carry, inputs = operands[:n], operands[n:n + k], operands[n + k:]
        types = Scan.infer([o.type for o in operands], attributes, regions)
        if length == 0:
            return [*carry, *map(_zeros, types[k:])]
        state = [bind("stablehlo.constant", value=np.asarray(0, np.int32)), *carry,
                 *map(_zeros, types[k:])]

        def step(i, *state):
            at = np.int32(length - 1) - i if attributes["reverse"] else i
            made = replay(body, [*constants, *state[:k], *(_row(x, at) for x in inputs)])
            outputs = [_put(y, row, at) for y, row in zip(state[k:], made[k:], strict=True)]
            return [i + np.int32(1), *made[:k], *outputs]

        kinds = [s.type for s in state]
        condition = trace_region(lambda i, *_: [bind(
            "stablehlo.compare", i, np.int32(length), comparison_direction="LT")], kinds)
        found = _list(bind("stablehlo.while", *state,
                           regions=[condition, trace_region(step, kinds)]))
        return found[1:]

    def vjp(cotangents, op, operands, results):
        """Run forward once more keeping every carry, then scan backwards."""
        a = op.attributes
        n, k = a["constants"], a["carries"]
        body: Function = a["body"]
        constants, carry, inputs = operands[:n], operands[n:n + k], operands[n + k:]
        keeping = trace(lambda *x: [*(r := replay(body, x))[:k], *x[n:n + k]],
                        [v.type for v in body.arguments], "keeping")[0]
        kept = _list(bind("tfn.scan", *operands, **{**a, "body": keeping}))[k:]
        seeds = [_zeros(r.type) if ct is None else ct
                 for ct, r in zip(cotangents, results, strict=True)]
        ct_carry = [s for s in seeds[:k] if s.type.dtype.is_inexact]
        ct_rows = [s for s in seeds[k:] if s.type.dtype.is_inexact]
        grown = [_zeros(c.type) for c in constants if c.type.dtype.is_inexact]
        m, g = len(ct_carry), len(grown)

        def back(*x):
            consts, x = x[:n], x[n:]
            ct, sums, x = x[:m], x[m:m + g], x[m + g:]
            state, x = x[:k], x[k:]
            rows, ct_out = x[:len(inputs)], x[len(inputs):]
            given = [*consts, *state, *rows]
            found = _spread(pull(lambda *v: replay(body, v), given, [*ct, *ct_out]), given)
            to_constants = [f for f in found[:n] if f is not None]
            to_carry = [f for f in found[n:n + k] if f is not None]
            to_rows = [f for f in found[n + k:] if f is not None]
            sums = [bind("stablehlo.add", s, f) for s, f in zip(sums, to_constants, strict=True)]
            return [*to_carry, *sums, *to_rows]

        stacked = [*kept, *inputs, *ct_rows]
        types = [*(c.type for c in constants), *(c.type for c in ct_carry), *(s.type for s in grown),
                 *(TensorType(tuple(s.shape[1:]), s.type.dtype) for s in stacked)]
        function = trace(back, types, "backward")[0]
        found = _list(bind("tfn.scan", *constants, *ct_carry, *grown, *stacked, body=function,
                           constants=n, carries=m + g, length=a["length"],
                           reverse=not a["reverse"])) if function.returns else []
        return [*_spread(found[m:m + g], constants), *_spread(found[:m], carry),
                *_spread(found[m + g:], inputs)]

    def batch(op, operands, batched, batch):
        from ..trace.batch import move

        a = op.attributes
        n, k, body = a["constants"], a["carries"], a["body"]
        constant, carry, row = batched[:n], list(batched[n:n + k]), batched[n + k:]
        while True:
            _, found = for_batch(batch, body, [*constant, *carry, *row])
            grown = [b or f for b, f in zip(carry, found[:k], strict=True)]
            if grown == carry:
                break
            carry = grown
        made, found = for_batch(batch, body, [*constant, *carry, *row], [*carry, *found[k:]])
        state = [batch.spread(x, b) if c else x for x, b, c
                 in zip(operands[n:n + k], batched[n:n + k], carry, strict=True)]
        rows = [move(x, 0, 1) if b else x for x, b in zip(operands[n + k:], row, strict=True)]
        results = _list(bind("tfn.scan", *operands[:n], *state, *rows, **{**a, "body": made}))
        outputs = [move(y, 1, 0) if f else y for y, f in zip(results[k:], found[k:], strict=True)]
        return _bound(op, [*results[:k], *outputs], found)

    def jvp(tangents, op, operands, results):
        a = op.attributes
        n, k = a["constants"], a["carries"]
        body: Function = a["body"]
        full = [None if not v.type.dtype.is_inexact else _zeros(v.type) if t is None else t
                for t, v in zip(tangents, operands, strict=True)]
        groups = [slice(0, n), slice(n, n + k), slice(n + k, None)]
        parts = [[t for t in full[s] if t is not None] for s in groups]
        sizes = [n, len(parts[0]), k, len(parts[1]), len(operands) - n - k, len(parts[2])]

        def dual(*x):
            pieces, at = [], 0
            for size in sizes:
                pieces.append(x[at:at + size])
                at += size
            consts, d_consts, state, d_state, rows, d_rows = pieces
            made, d_made = push(lambda *v: replay(body, v), [*consts, *state, *rows],
                                [*d_consts, *d_state, *d_rows])
            m = len(d_state)
            return [*made[:k], *d_made[:m], *made[k:], *d_made[m:]]

        ordered = [*operands[groups[0]], *parts[0], *operands[groups[1]], *parts[1],
                   *operands[groups[2]], *parts[2]]
        lead = n + len(parts[0]) + k + len(parts[1])
        types = [v.type for v in ordered[:lead]]
        types += [TensorType(tuple(v.shape[1:]), v.type.dtype) for v in ordered[lead:]]
        function = trace(dual, types, "dual")[0]
        found = _list(bind("tfn.scan", *ordered, body=function, constants=n + len(parts[0]),
                           carries=k + len(parts[1]), length=a["length"], reverse=a["reverse"]))
        m = len(parts[1])
        d_carry = _spread(found[k:k + m], results[:k])
        return [*d_carry, *_spread(found[k + m + len(results) - k:], results[k:])]


# -- derivatives of one's own ---------------------------------------------------------------------

class _Applied(_Functional):
    """A function applied to the operands, with rules of its own."""

    def infer(operands, attributes, regions):
        return list(attributes["function"].result_types)

    def decompose(operands, attributes, regions):
        return replay(attributes["function"], operands)


@op("tfn.custom_vjp")
class CustomVjp(_Applied):
    """`backward(operands, cotangents) -> cotangents of the operands` is the user's."""

    attributes = {"function": "opaque", "backward": "opaque"}

    def vjp(cotangents, op, operands, results):
        seeds = [_zeros(r.type) if ct is None else ct
                 for ct, r in zip(cotangents, results, strict=True)]
        return op.attributes["backward"](operands, seeds)

    def batch(op, operands, batched, batch):
        function, found = for_batch(batch, op.attributes["function"], batched)
        count = len(operands)

        def backward(given, cotangents):
            return rule_for_batch(
                batch, lambda *v: op.attributes["backward"](v[:count], v[count:]),
                [*batched, *found], [*given, *cotangents], batched)

        return _bound(op, bind(op.definition, *operands, function=function, backward=backward), found)


@op("tfn.custom_jvp")
class CustomJvp(_Applied):
    """`forward(operands, tangents) -> tangents of the results` is the user's; reverse mode transposes
    it."""

    attributes = {"function": "opaque", "forward": "opaque"}

    def jvp(tangents, op, operands, results):
        given = [_zeros(v.type) if t is None else t for t, v in zip(tangents, operands, strict=True)]
        return op.attributes["forward"](operands, given)

    def vjp(cotangents, op, operands, results):
        def rule(tangents, op, operands, results):
            return op.attributes["forward"](operands, tangents)

        return transposed_jvp(rule, cotangents, op, operands, results)

    def batch(op, operands, batched, batch):
        function, found = for_batch(batch, op.attributes["function"], batched)
        count = len(operands)

        def forward(given, tangents):
            return rule_for_batch(
                batch, lambda *v: op.attributes["forward"](v[:count], v[count:]),
                [*batched, *batched], [*given, *tangents], found)

        return _bound(op, bind(op.definition, *operands, function=function, forward=forward), found)


def transposed_jvp(rule: Callable[..., Sequence[Any]], cotangents, op, operands, results) -> list[Any]:
    """A `vjp` rule by the transpose of a `jvp` rule, which is linear in the tangents."""
    active = [i for i, o in enumerate(operands) if o.type.dtype.is_inexact]

    def linear(*tangents):
        rest = iter(tangents)
        given = [next(rest) if i in active else _zeros(o.type) for i, o in enumerate(operands)]
        found = rule(given, op, operands, results)
        return [_zeros(r.type) if f is None else f
                for f, r in zip(found, results, strict=True) if r.type.dtype.is_inexact]

    points = [_zeros(operands[i].type) for i in active]
    return _spread(pull(linear, points, _seeds(cotangents, results)), operands)


@op("tfn.checkpoint")
class Checkpoint(_Applied):
    """A function whose intermediate values are computed again for its derivative, but for its last
    `kept` results, which are kept."""

    attributes = {"function": "opaque", "kept": "opaque"}

    def vjp(cotangents, op, operands, results):
        from ..trace.grad import Pullback

        function, count = op.attributes["function"], len(results) - op.attributes["kept"]
        wanted = [i for i, o in enumerate(operands) if o.type.dtype.is_inexact]
        seeds = [ct for ct in cotangents[:count] if ct is not None]
        # Behind a barrier the second computation is not recognised as the first.
        fresh = _list(bind("stablehlo.optimization_barrier", *operands, *seeds))
        rest = iter(fresh[len(operands):])
        given = [None if ct is None else next(rest) for ct in cotangents[:count]]
        known = dict(zip(function.returns[count:], results[count:], strict=True))
        back = Pullback(function, fresh[: len(operands)], wanted, known)
        return _spread(back([*given, *[None] * op.attributes["kept"]]), operands)

    def batch(op, operands, batched, batch):
        function, found = for_batch(batch, op.attributes["function"], batched)
        return _bound(op, bind("tfn.checkpoint", *operands, function=function,
                               kept=op.attributes["kept"]), found)
