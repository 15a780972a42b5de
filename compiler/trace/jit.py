"""`jit`: trace once per signature, compile, call.

A signature is the structure, shapes and dtypes of the arguments, the values of static arguments and
the default float.
Under another trace a jitted function is simply inlined.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DonatedError, TfnError, TraceError, user_location
from ..ir.core import Function, Location, TensorType
from ..ir.defaults import default_float
from ..ir.dtypes import DType
from ..locks import new_rlock
from ..ops.host import CHECKS
from ..runtime.records import RECORDS
from . import names, tree
from .core import Array, Tracer, as_array, current_graph, shown, trace


def as_leaf(leaf: Any) -> Array | Tracer:
    """A leaf as an array; Python floats are the default float, ints int32, as everywhere."""
    if isinstance(leaf, (Array, Tracer)):
        return leaf
    if isinstance(leaf, bool):
        return Array(np.asarray(leaf))
    if isinstance(leaf, float):
        return Array(np.asarray(leaf, default_float().numpy))
    if isinstance(leaf, int):
        return Array(np.asarray(leaf, np.int32))
    return as_array(leaf)


def trace_tree(
    function: Callable, structure, types: Sequence[TensorType], name: str = "main"
) -> tuple[Function, Any, list[Tracer]]:
    """Trace `function(*args, **kwargs)` where `structure` is that of `(args, kwargs)`.

    Returns the flat IR function, the structure of the result, and captured outer tracers.
    """
    out = []

    def flat(*tracers):
        args, kwargs = tree.unflatten(structure, tracers)
        leaves, result_structure = tree.flatten(call(function, args, kwargs))
        out.append(result_structure)
        try:
            return [as_leaf(leaf) for leaf in leaves]
        except TraceError:
            _refuse_leaf(leaves, names.leaf_names(result_structure, "result"),
                         f"{names.function_name(function)} returns",
                         "a traced function returns arrays and numbers in tuples, lists and dicts")
            raise

    traced, captures = trace(flat, types, name)
    return traced, out[0], captures


def call(function: Callable, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Any:
    """`function(*args, **kwargs)`; `TraceError` at the user's line when it does not take them."""
    try:
        return function(*args, **(kwargs or {}))
    except TypeError:
        names.check_call(function, args, kwargs or {})
        raise


def _refuse_leaf(leaves: Sequence[Any], called: Sequence[str], verb: str, rule: str) -> None:
    """Raise `TraceError` for the first leaf that is no array."""
    for leaf, name in zip(leaves, called, strict=True):
        try:
            as_leaf(leaf)
        except TfnError:
            raise TraceError(f"{verb} {shown(leaf)} as {name}, which is no array: {rule}",
                             user_location()) from None


class _Donated:
    """What an array holds once its memory was given away: any use of it is an error."""

    __slots__ = ("_to", "_where")
    _to: Callable
    _where: Location | None

    def __init__(self, to: Callable, where: Location | None):
        self._to, self._where = to, where

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise DonatedError(
            f"this array was donated to {names.function_name(self._to)} at {self._where}, which may"
            " have written its result over it. Use the result instead, keep a copy"
            " (numpy.array(x, copy=True)), or do not donate it",
            user_location())

    __getattr__ = __getitem__ = __array__ = __iter__ = __len__ = _refuse
    __bool__ = __int__ = __float__ = __complex__ = __index__ = __format__ = _refuse


_TAKING = new_rlock()


def _taken(function: Callable, arrays: Sequence[Array], donated: Sequence[int]) -> list[np.ndarray]:
    """The data of a call's arrays. Those it donates hold it no more from here on: of several threads
    that donate an array one gets it, and it stays gone when the call fails half way."""
    gone = _Donated(function, user_location())
    with _TAKING:
        data = [a._data for a in arrays]
        if _Donated in map(type, data):
            data[[*map(type, data)].index(_Donated)]._refuse()  # type: ignore[attr-defined]
        for i in donated:
            arrays[i]._data = gone  # type: ignore[assignment]
    return data


class _Program(NamedTuple):
    """What one signature was compiled to."""

    executable: Callable[..., Sequence[np.ndarray]]
    structure: Any
    """Of the arguments that are not static."""
    result_structure: Any
    donated: list[int]
    """The arguments that give their memory away."""
    flat: int
    """The number of arguments when each is an array by itself, else -1."""
    bare: bool
    """The result is one array."""
    default: DType
    """The default float it was traced with."""
    types: list[tuple[tuple[int, ...], np.dtype]]
    """Shape and dtype of each array."""

    def enter(self, data: Sequence[np.ndarray]) -> Any:
        """The results for arrays of its types; `NotImplemented` for others."""
        results = self.executable.enter(*data)  # type: ignore[attr-defined]
        if results is NotImplemented and [(d.shape, d.dtype) for d in data] == self.types:
            # Views that the entry leaves to others.
            return self.executable(*data)
        return results

    def results(self, arrays: Sequence[np.ndarray]) -> Any:
        if self.bare:
            return Array(arrays[0])
        return tree.unflatten(self.result_structure, [Array(a) for a in arrays])


def _is_watched() -> bool:
    """Are programs made to report on themselves, in this thread?"""
    return CHECKS.nans or CHECKS.infs or RECORDS.active


class Jitted:
    """A compiled callable; see `jit`."""

    def __init__(self, function: Callable, static_argnums=(), donate_argnums=(), compiler=None,
                 static_argnames=(), donate_argnames=()):
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.static, self.static_names = _places(function, static_argnums, static_argnames)
        self.donated, self.donated_names = _places(function, donate_argnums, donate_argnames)
        self.compiler = compiler
        self._programs: dict[Any, _Program] = {}
        self._recent: _Program | None = None
        """The last program, when its entry can tell by itself whether arrays fit."""
        self._lock = new_rlock()

    def _bound(self, args, kwargs):
        """The function with its static arguments filled in, and the remaining arguments."""
        named = {k: v for k, v in kwargs.items() if k in self.static_names}
        fixed = {i: args[i] for i in self.static if i < len(args)}
        if not fixed and not named:
            return self.function, args, kwargs

        def call(*dynamic, **rest_named):
            rest = iter(dynamic)
            full = [fixed[i] if i in fixed else next(rest) for i in range(len(args))]
            return self.function(*full, **named, **rest_named)

        return (call, tuple(a for i, a in enumerate(args) if i not in fixed),
                {k: v for k, v in kwargs.items() if k not in named})

    def _signature(self, args, kwargs):
        _, dynamic, named = self._bound(args, kwargs)
        leaves, structure = tree.flatten((dynamic, named))
        try:
            arrays = [as_leaf(leaf) for leaf in leaves]
        except TraceError:
            called = names.argument_names(self._dynamic_function(), dynamic, named)
            _refuse_leaf(leaves, called, f"{names.function_name(self.function)} is given",
                         "make it static (jit's static_argnums), or an array")
            raise
        static = tuple((i, args[i]) for i in sorted(self.static) if i < len(args))
        static += tuple(sorted((k, kwargs[k]) for k in kwargs.keys() & self.static_names))
        for i, value in static:
            self._check_static(i, value)
        types = tuple((a._data.shape, a._data.dtype) if isinstance(a, Array) else a.type
                      for a in arrays)
        settings = (default_float(), CHECKS.nans, CHECKS.infs, RECORDS.active)
        return arrays, structure, (structure, types, static, settings)

    def _dynamic_function(self) -> Callable:
        """The function with the signature of its arguments that are not static."""
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return self.function
        kept = [p for i, p in enumerate(signature.parameters.values()) if i not in self.static]

        def dynamic(*args, **kwargs): ...

        dynamic.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return dynamic

    def _check_static(self, number: int | str, value: Any) -> None:
        if isinstance(value, (Array, Tracer, np.ndarray)):
            wrong, remedy = "an array", "a static argument is a Python value: let it be traced"
        else:
            try:
                hash(value)
                return
            except TypeError:
                wrong, remedy = "not hashable", "give a tuple instead of a list or an array"
        raise TraceError(f"static argument {number} of {names.function_name(self.function)},"
                         f" {shown(value)}, is {wrong}; {remedy}", user_location())

    def __call__(self, *args, **kwargs):
        if current_graph() is not None:
            return self.function(*args, **kwargs)
        recent = self._recent
        if recent is not None:
            results = self._again(recent, args, kwargs)
            if results is not NotImplemented:
                return results
        arrays, structure, key = self._signature(args, kwargs)
        program = self._programs.get(key)
        if program is None:
            with self._lock:
                program = self._programs.get(key)
                if program is None:
                    program = self._programs.setdefault(
                        key, self._compile(args, kwargs, structure, arrays))
        direct = not (self.static or self.static_names or _is_watched())
        self._recent = program if direct and hasattr(program.executable, "enter") else None
        if program.donated:
            data = _taken(self.function, arrays, program.donated)
        else:
            data = [a._data for a in arrays]
        return program.results(program.executable(*data))

    def _again(self, program: _Program, args, kwargs) -> Any:
        """Call the last program with arguments of the same structure that its entry takes;
        `NotImplemented` otherwise."""
        if program.default is not default_float() or _is_watched():
            return NotImplemented
        leaves: Sequence[Any] = args
        if program.flat != len(args) or kwargs:
            leaves, structure = tree.flatten((args, kwargs))
            if structure != program.structure:
                return NotImplemented
        data = [a._data for a in leaves if type(a) is Array]
        if len(data) != len(leaves):
            return NotImplemented
        if program.donated:
            data = _taken(self.function, leaves, program.donated)
        results = program.enter(data)
        if results is not NotImplemented:
            return program.results(results)
        for i in program.donated:
            leaves[i]._data = data[i]
        return NotImplemented

    def explain(self) -> str:
        """Why each compiled signature was a new one: what differs from the nearest before it."""
        keys = list(self._programs)
        name = getattr(self.function, "__name__", "the function")
        lines = [f"{name} was compiled for {len(keys)} signatures"]
        for number, key in enumerate(keys):
            reasons = [_differences(key, other) for other in keys[:number]]
            why = min(reasons, key=len) if reasons else ["the first call"]
            lines.append(f"{number + 1}. {'; '.join(why)}")
        return "\n".join(lines)

    def trace(self, *args, **kwargs) -> Function:
        """The IR of a call with these arguments (arrays, or `TensorType`s in their place)."""
        call, dynamic, named = self._bound(args, kwargs)
        leaves, structure = tree.flatten((dynamic, named))
        types = [x if isinstance(x, TensorType) else as_leaf(x).type for x in leaves]
        return self._trace(call, args, structure, types)[0]

    def _trace(self, call, args, structure, types):
        name = getattr(self.function, "__name__", "main")
        name = name if name.isidentifier() else "main"
        function, result_structure, captures = trace_tree(call, structure, types, name)
        if captures:
            raise TraceError(
                f"{name} closes over a traced value, {captures[0]!r}; pass it as an argument",
                user_location(), captures[0].origin())
        if CHECKS.nans or CHECKS.infs:
            # The report names the argument; nothing is donated, so that what it was stays visible.
            self._name_arguments(function, args, structure)
        else:
            self._donate(function, args, structure)
        return function, result_structure

    def _name_arguments(self, function: Function, args, structure) -> None:
        dynamic, kwargs = tree.unflatten(structure, function.arguments)
        called = names.argument_names(self._dynamic_function(), dynamic, kwargs)
        for attributes, name in zip(function.argument_attributes, called, strict=True):
            attributes["tfn.name"] = name

    def _donate(self, function: Function, args, structure) -> None:
        """Pair each donated argument with the first unpaired result of its type."""
        if not self.donated and not self.donated_names:
            return
        dynamic = [i for i in range(len(args)) if i not in self.static]
        position = 0
        donated: list[int] = []
        for i in dynamic:
            count = len(tree.leaves(args[i]))
            if i in self.donated:
                donated += range(position, position + count)
            position += count
        _, kwargs = tree.unflatten(structure, function.arguments)
        for name in sorted(kwargs):
            count = len(tree.leaves(kwargs[name]))
            if name in self.donated_names:
                donated += range(position, position + count)
            position += count
        free = list(range(len(function.returns)))
        for i in donated:
            match = next((j for j in free
                          if function.returns[j].type == function.arguments[i].type), None)
            if match is not None:
                free.remove(match)
                function.argument_attributes[i]["tf.aliasing_output"] = match

    def _compile(self, args, kwargs, structure, arrays) -> _Program:
        call, dynamic, _ = self._bound(args, kwargs)
        function, result_structure = self._trace(call, args, structure, [a.type for a in arrays])
        donated = [i for i, a in enumerate(function.argument_attributes)
                   if "tf.aliasing_output" in a]
        executable = (self.compiler or _compiled)(function)
        flat = len(dynamic) if tree.is_flat(dynamic) and not kwargs else -1
        return _Program(executable, structure, result_structure, donated, flat,
                        tree.is_leaf(result_structure), default_float(),
                        [(a.shape, a.dtype) for a in arrays])


def _compiled(function: Function, **options: Any) -> Callable[..., Sequence[np.ndarray]]:
    from ..compile import compile_function

    return compile_function(function, **options)


def _differences(key, before) -> list[str]:
    """What of a signature differs from an earlier one, in words."""
    (structure, types, static, settings), (structure_0, types_0, static_0, settings_0) = key, before
    if structure != structure_0:
        return [f"the structure of the arguments is {structure}, was {structure_0}"]
    found = []
    for i, (new, old) in enumerate(zip(types, types_0, strict=True)):
        for what, a, b in zip(("shape", "dtype"), _parts(new), _parts(old), strict=True):
            if a != b:
                found.append(f"array {i} has {what} {a}, had {b}")
    found += [f"static argument {i} is {a!r}, was {b!r}"
              for (i, a), (_, b) in zip(static, static_0, strict=False) if a != b]
    return found + ["the settings differ"] * (settings != settings_0)


def _parts(signature) -> tuple:
    """Shape and dtype of an entry of a signature."""
    if isinstance(signature, TensorType):
        return signature.shape, signature.dtype
    return signature


def _places(function: Callable, numbers, called) -> tuple[frozenset[int], frozenset[str]]:
    """Positions and names of the arguments given by either, whichever way a call passes them."""
    numbers = [numbers] if isinstance(numbers, int) else list(numbers)
    called = {called} if isinstance(called, str) else set(called)
    if not numbers and not called:
        return frozenset(), frozenset()
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return frozenset(numbers), frozenset(called)
    order = [p.name for p in parameters
             if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    unknown = called - {p.name for p in parameters}
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise TraceError(f"{names.function_name(function)} has no argument"
                         f" {', '.join(sorted(unknown))}; it has"
                         f" {', '.join(p.name for p in parameters)}", user_location())
    places = {n + len(order) if n < 0 else n for n in numbers}
    called |= {order[i] for i in places if i < len(order)}
    return frozenset(places | {order.index(n) for n in called if n in order}), frozenset(called)


def jit(function: Callable | None = None, *, static_argnums=(), donate_argnums=(), compiler=None,
        static_argnames=(), donate_argnames=(), memory_budget: int | None = None,
        fast_convolution: bool | None = None):
    """Compile `function` for each signature it is called with.

    `static_argnums`, `static_argnames`: arguments that are hashable Python values, not arrays.
    `donate_argnums`, `donate_argnames`: arguments whose buffers the results may reuse; reading one
    again raises `DonatedError`.
    `compiler`: `Function -> callable` in place of the default (a partitioning compiler, say).
    `memory_budget`: the bytes a call may use beside arguments and results. Where keeping all values
    takes more, cheap ones are computed again when they are needed: the same bits, in more time.
    `fast_convolution`: True lets 3x3 convolutions in f32 be done by Winograd's algorithm, two to three
    times faster and with errors of 1e-5 instead of 1e-6 of the largest result; False does not; None is
    what the environment's `TFN_FAST_CONVOLUTION` (1 or 0) says when a program is compiled.
    Raises `TraceError` when Python control flow depends on an array, and `CompileError` when the budget
    is too small.
    """
    options: dict[str, Any] = {name: value for name, value in (
        ("memory_budget", memory_budget), ("fast_convolution", fast_convolution)) if value is not None}
    if options:
        if compiler is not None:
            raise TraceError(f"jit takes a compiler or a {next(iter(options))}, not both",
                             user_location())
        compiler = functools.partial(_compiled, **options)
    if function is None:
        return functools.partial(
            jit, static_argnums=static_argnums, donate_argnums=donate_argnums, compiler=compiler,
            static_argnames=static_argnames, donate_argnames=donate_argnames)
    return Jitted(function, static_argnums, donate_argnums, compiler, static_argnames, donate_argnames)
