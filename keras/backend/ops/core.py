"""Core ops: conversion, control flow, indexed reads and writes, abstract evaluation."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from keras.src import tree
from keras.src.backend.common import standardize_dtype
from keras.src.backend.common.dtypes import result_type
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.name_scope import current_path, name_scope
from keras.src.backend.common.stateless_scope import StatelessScope, get_stateless_scope
from keras.src.backend.common.symbolic_scope import SymbolicScope

from ....compiler import numpy as tnp
from ....compiler.errors import TfnError, TraceError
from ....compiler.ir.core import TensorType
from ....compiler.ir.dtypes import as_dtype
from ....compiler.trace import control
from ....compiler.trace.batch import vmap
from ....compiler.trace.core import Array, Graph, Tracer, current_graph
from ....compiler.trace.custom import custom_vjp
from ....compiler.trace.grad import stop_gradient as _stop_gradient
from ....compiler.trace.remat import checkpoint
from ....compiler.trace.scope import named_by
from ....compiler.trace.trips import trip_count

SUPPORTS_SPARSE_TENSORS = False
SUPPORTS_RAGGED_TENSORS = False
SUPPORTS_COMPLEX_DTYPES = True
IS_THREAD_SAFE = True

named_by(current_path)

__all__ = ["name_scope"]


def is_tensor(x):
    return isinstance(x, (Array, Tracer))


def held(x: Any) -> Any:
    """The array inside a variable; anything else as it is."""
    if type(x) is Array:
        return x
    convert = getattr(x, "__tfn_array__", None)
    return x if convert is None else convert()


def convert_to_tensor(x, dtype=None, sparse=None, ragged=None):
    """Any value as an array of `dtype`; without one, of the dtype Keras gives it."""
    if sparse or ragged:
        refuse_sparse(True)
    x = held(x)
    if dtype is None and type(x) is Array:
        return x
    wanted = None if dtype is None else standardize_dtype(dtype)
    if is_tensor(x):
        return x if wanted is None or x.dtype.name == wanted else x.astype(wanted)
    if isinstance(x, KerasTensor):
        raise ValueError(f"{x} is symbolic: an operation on it belongs in a layer or keras.ops")
    parts = tree.flatten(x) if isinstance(x, (list, tuple)) else [x]
    if wanted is None:
        if isinstance(x, (np.ndarray, np.generic)):
            wanted = standardize_dtype(x.dtype)
        else:
            wanted = result_type(*[getattr(p, "dtype", type(p)) for p in parts])
    if isinstance(x, (list, tuple)) and any(is_tensor(held(p)) for p in parts):
        return tnp.stack([convert_to_tensor(p, wanted) for p in x])
    return Array(np.asarray(x).astype(as_dtype(wanted).numpy, copy=False))


def refuse_sparse(sparse):
    if sparse:
        raise ValueError("the tfn backend has no sparse or ragged tensors: use dense ones")


def convert_to_numpy(x):
    """The values of `x`; they may be written to, so those of a tensor are copied."""
    x = held(x)
    if isinstance(x, (list, tuple)):
        return np.stack([convert_to_numpy(part) for part in x]) if x else np.asarray(x)
    return np.array(x) if is_tensor(x) else np.asarray(x)


def shape(x):
    return tuple(x.shape)


def cast(x, dtype):
    return convert_to_tensor(x, dtype=dtype)


def stop_gradient(variable):
    return _stop_gradient(held(variable))


def random_seed_dtype():
    return "uint32"


def device_scope(device_name):
    return nullcontext()


def unstack(x, num=None, axis=0):
    count = x.shape[axis] if num is None else num
    return [tnp.take(x, i, axis=axis) for i in range(count)]


# -- abstract evaluation --------------------------------------------------------------------------

# Sizes that stand for unknown dims; a result dim that differs between the two is unknown, too.
_STAND_INS = (83, 89)


def compute_output_spec(fn, *args, **kwargs):
    """Shapes and dtypes of `fn`'s results for symbolic arguments, by tracing it."""
    with SymbolicScope():
        unknown = any(None in x.shape for x in tree.flatten((args, kwargs))
                      if isinstance(x, KerasTensor))
        first = _abstract(fn, args, kwargs, _STAND_INS[0])
        if not unknown:
            return tree.map_structure(_as_spec, first)
        second = _abstract(fn, args, kwargs, _STAND_INS[1])
        return tree.map_structure(_as_spec, first, second)


def _abstract(fn, args, kwargs, size: int):
    """Results of `fn` with every symbolic tensor a tracer whose unknown dims have `size`."""
    types = [TensorType(tuple(size if d is None else d for d in x.shape), as_dtype(x.dtype))
             for x in tree.flatten((args, kwargs)) if isinstance(x, KerasTensor)]
    with StatelessScope(), Graph(types) as graph:
        tracers = iter(graph.arguments)
        args, kwargs = tree.map_structure(
            lambda x: next(tracers) if isinstance(x, KerasTensor) else x, (args, kwargs))
        try:
            return fn(*args, **kwargs)
        except TfnError as error:
            if str(size) in error.message:
                error.message += f" ({size} stands for a size that is not known yet)"
            raise


def _as_spec(x: Any, again: Any = None) -> Any:
    if not is_tensor(x):
        return x
    dims = x.shape if again is None else tuple(
        a if a == b else None for a, b in zip(x.shape, again.shape, strict=True))
    return KerasTensor(dims, standardize_dtype(x.dtype))


# -- control flow ---------------------------------------------------------------------------------

def cond(pred, true_fn, false_fn):
    """Run one branch; with a traced predicate run both and select, variable writes included."""
    pred = convert_to_tensor(pred)
    if isinstance(pred, Array):
        return true_fn() if bool(pred) else false_fn()
    scope = get_stateless_scope()
    before = dict(scope.state_mapping) if scope is not None else {}
    results, writes = [], []
    for branch in (true_fn, false_fn):
        results.append(branch())
        if scope is not None:
            writes.append(dict(scope.state_mapping))
            scope.state_mapping.clear()
            scope.state_mapping.update(before)
    if scope is not None:
        _merge_writes(scope, pred, before, *writes)
    return tree.map_structure(
        lambda a, b: None if a is None else tnp.where(pred, convert_to_tensor(a),
                                                      convert_to_tensor(b)), *results)


def _merge_writes(scope, pred, before, yes, no) -> None:
    """Variables written by either branch take the value of the chosen one."""
    for key in {*yes, *no}:
        a, b = (w.get(key, before.get(key)) for w in (yes, no))
        if a is None or b is None:
            raise NotImplementedError("a traced cond writes a variable in one branch only that has"
                                      " no value in this scope")
        scope.state_mapping[key] = a if a is b else tnp.where(pred, a, b)


def switch(index, branches, *operands):
    index = convert_to_tensor(index, "int32")
    if isinstance(index, Array):
        return branches[int(np.clip(int(index), 0, len(branches) - 1))](*operands)
    result = branches[-1](*operands)
    for i in reversed(range(len(branches) - 1)):
        here = branches[i](*operands)
        result = tree.map_structure(
            lambda a, b, i=i: tnp.where(tnp.less_equal(index, i), a, b), here, result)
    return result


def while_loop(cond, body, loop_vars, maximum_iterations=None):
    """Repeat `body` while `cond` holds: in Python when eager, else as a loop of the program. That loop
    has a derivative where the number of rounds does not depend on traced values, and it carries the
    variables that `body` writes. A traced `body` that changes the shape or dtype of the state is
    unrolled; the condition must be known then."""
    single = not isinstance(loop_vars, (list, tuple))
    state = tree.map_structure(convert_to_tensor, (loop_vars,) if single else tuple(loop_vars))

    def go_on(state):
        return convert_to_tensor(cond(*state), "bool")

    def step(state):
        new = body(*state)
        return tuple(new) if isinstance(new, (list, tuple)) else (new,)

    if current_graph() is None:
        state = _unrolled_while(go_on, step, state, maximum_iterations)
    else:
        state = _traced_while(go_on, step, state, maximum_iterations)
    return state[0] if single else state


def _unrolled_while(go_on, step, state, limit):
    rounds = 0
    while limit is None or rounds < limit:
        more = go_on(state)
        if isinstance(more, Tracer):
            raise NotImplementedError(
                "a while_loop whose condition is traced can write only variables that have a value"
                " in this StatelessScope: give it one, or return what the variable should hold and"
                " assign it after the loop")
        if not bool(more):
            break
        state = step(state)
        rounds += 1
    return state


def _traced_while(go_on, step, state, limit):
    scope = get_stateless_scope()
    before = dict(scope.state_mapping) if scope is not None else {}
    try:
        return _looped_while(go_on, step, state, limit, scope, before)
    except TraceError:
        _reset(scope, before)
        if isinstance(go_on(state), Tracer):
            raise
        return _unrolled_while(go_on, step, state, limit)


def _reset(scope, values) -> None:
    """Let the variables have `values` again."""
    if scope is not None:
        scope.state_mapping.clear()
        scope.state_mapping.update(values)


def _looped_while(go_on, step, state, limit, scope, before):
    written: list[int] = []  # The ids of variables.
    leaves = tree.flatten(state)
    size = len(leaves)

    def entered(carried):
        if scope is not None:
            scope.state_mapping.update(zip(written, carried[size:], strict=True))
        return tree.pack_sequence_as(state, carried[:size])

    def flat_step(carried):
        new = step(entered(carried))
        values = [scope.state_mapping[key] for key in written]
        return [convert_to_tensor(leaf) for leaf in tree.flatten(new)] + values

    def flat_more(carried):
        return go_on(entered(carried))

    def turn(*carried):
        return [flat_more(carried), *flat_step(carried)]

    count = trip_count(turn, leaves)
    if scope is not None and not _same_values(scope.state_mapping, before):
        # Which variables are written is known once the body was traced.
        changed = [key for key, v in scope.state_mapping.items() if v is not before.get(key)]
        _reset(scope, before)
        if any(key not in before for key in changed):
            return _unrolled_while(go_on, step, state, limit)
        written += changed
        leaves = [*leaves, *(before[key] for key in written)]
        count = trip_count(turn, leaves)
    if count is not None and not isinstance(limit, Tracer):
        count = count if limit is None else min(count, limit)
        found = control.scan(lambda s, _: (flat_step(s), None), leaves, None, count)[0]
    elif limit is None:
        found = control.while_loop(flat_more, flat_step, leaves)
    else:
        rounds = tnp.zeros_like(convert_to_tensor(limit))
        _, found = control.while_loop(
            lambda s: tnp.logical_and(flat_more(s[1]), tnp.less(s[0], limit)),
            lambda s: (s[0] + 1, flat_step(s[1])), (rounds, leaves))
    _reset(scope, {**before, **dict(zip(written, found[size:], strict=True))})
    return tree.pack_sequence_as(state, found[:size])


def fori_loop(lower, upper, body_fun, init_val):
    if current_graph() is not None:
        return control.fori_loop(lower, upper, body_fun, init_val)
    value = init_val
    for i in range(int(lower), int(upper)):
        value = body_fun(i, value)
    return value


def scan(f, init, xs=None, length=None, reverse=False, unroll=1):
    """Carry a state over the leading axis of `xs`. A traced program gets one loop, unless `f` writes
    variables: then it is unrolled, since a loop cannot carry what it was not given."""
    if not isinstance(unroll, bool) and (not isinstance(unroll, int) or unroll < 1):
        raise ValueError(f"`unroll` must be an positive integer or boolean. Received: unroll={unroll}")
    if current_graph() is None:
        return fold(f, init, xs, length, reverse)
    scope = get_stateless_scope()
    before = dict(scope.state_mapping) if scope is not None else {}
    init = tree.map_structure(convert_to_tensor, init)
    xs = None if xs is None else tree.map_structure(convert_to_tensor, xs)

    def step(carry, x):
        new, y = f(carry, x)
        flat = [convert_to_tensor(leaf) for leaf in tree.flatten(new)]
        return tree.pack_sequence_as(init, flat), y

    result = control.scan(step, init, xs, length, reverse)
    if scope is not None and not _same_values(scope.state_mapping, before):
        scope.state_mapping.clear()
        scope.state_mapping.update(before)
        return fold(f, init, xs, length, reverse)
    return result


def _same_values(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[key] is b[key] for key in a)


def fold(f, init, xs=None, length=None, reverse=False):
    """`scan`, a step after the other in Python."""
    if not callable(f):
        raise TypeError(f"`f` should be a callable. Received: f={f}")
    leaves = [convert_to_tensor(x) for x in tree.flatten(xs)] if xs is not None else []
    if not leaves and length is None:
        raise ValueError("got no `xs` to scan over and no `length`")
    count = int(length) if length is not None else leaves[0].shape[0]
    carry, outputs = init, []
    order = range(count)
    for i in reversed(order) if reverse else order:
        here = None if xs is None else tree.pack_sequence_as(xs, [x[i] for x in leaves])
        carry, y = f(carry, here)
        outputs.append(y)
    outputs = outputs[::-1] if reverse else outputs
    if not outputs or outputs[0] is None:
        return carry, None
    return carry, tree.map_structure(lambda *ys: tnp.stack(ys), *outputs)


def associative_scan(f, elems, reverse=False, axis=0):
    elems = tree.map_structure(convert_to_tensor, elems)
    sizes = {x.shape[axis] for x in tree.flatten(elems)}
    if len(sizes) > 1:
        raise ValueError(f"`elems` must have one first dimension (axis {axis}) to scan over, got"
                         f" {sorted(sizes)}")
    return control.associative_scan(f, elems, reverse, axis)


def map(f, xs):
    return scan(lambda carry, x: (carry, f(x)), (), xs)[1]


def vectorized_map(function, elements):
    """`function` on each slice along the leading axis, all at once."""
    return vmap(function)(tree.map_structure(convert_to_tensor, elements))


def custom_gradient(fun):
    """`fun(*args) -> (result, gradient)` as a function of `args` with that gradient.

    The gradient closes over values of its forward pass, which is therefore traced again beside it; the
    compiler keeps one of the two.
    """
    def result(*args):
        return fun(*args)[0]

    def backward(args, cotangent):
        found = fun(*args)[1](cotangent)
        return tuple(found) if isinstance(found, (list, tuple)) else (found,)

    function = custom_vjp(result)
    function.defvjp(lambda *args: (fun(*args)[0], args), backward)
    return lambda *args: function(*(convert_to_tensor(a) for a in args))


def remat(f):
    return checkpoint(f)


# -- indexed reads and writes ---------------------------------------------------------------------

def slice(inputs, start_indices, shape):
    """`shape` elements from `start_indices` on; -1 for all there are."""
    inputs = convert_to_tensor(inputs)
    sizes = tuple(d - int(start) if size == -1 else size
                  for d, start, size in zip(inputs.shape, start_indices, shape, strict=True))
    return tnp.dynamic_slice(inputs, list(start_indices), sizes)


def slice_update(inputs, start_indices, updates):
    return tnp.dynamic_update_slice(convert_to_tensor(inputs), convert_to_tensor(updates),
                                    list(start_indices))


def scatter(indices, values, shape):
    values = convert_to_tensor(values)
    return scatter_update(tnp.zeros(tuple(shape), dtype=values.dtype), indices, values, "add")


_UPDATES = {None: "set", "add": "add", "max": "max", "min": "min", "mul": "multiply"}


def scatter_update(inputs, indices, updates, reduction=None):
    if reduction not in _UPDATES:
        raise ValueError(f"unsupported reduction {reduction!r}; use one of add, max, min, mul")
    inputs, indices = convert_to_tensor(inputs), convert_to_tensor(indices)
    place = tuple(indices[..., i] for i in range(indices.shape[-1]))
    return getattr(inputs.at[place], _UPDATES[reduction])(convert_to_tensor(updates))
