"""Prints the IR as StableHLO text.

Ops with a row in `ir/syntax.py` or a form in `ir/forms.py` get StableHLO's pretty form, all others
(and whatever a pretty form cannot express) the generic one. `print_module` writes text that other
StableHLO tools accept; `print_function` never fails, so it also serves for looking at broken IR.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .attributes import Verbatim, kind_of, write_attribute, write_name, write_symbol
from .core import Block, Function, Module, Op, Value
from .forms import FORMS
from .syntax import function_type, row_of, write_row


def print_module(module: Module) -> str:
    """The module and every private function its ops refer to.

    Functions with symbolic dims are printed in StableHLO's dynamic form (`ir.dynamic`); raises
    `UnsupportedError` for an op that has none.
    """
    from .dynamic import to_dynamic

    functions = [to_dynamic(f) for f in module.functions.values()]
    printer = Printer(functions)
    attributes = {k: v for k, v in module.attributes.items() if k != MESHES}
    header = f"module {write_symbol(module.name)}"
    if attributes:
        header += f" attributes {_argument_dictionary(attributes)}"
    lines = [header + " {"]
    for name, mesh in module.attributes.get(MESHES, {}).items():
        lines.append(f"  sdy.mesh {write_symbol(name)} = {write_attribute(mesh)}")
    lines += [printer.function(f, "  ") for f in printer.functions]
    return "\n".join([*lines, "}", ""])


def print_function(function: Function) -> str:
    """The function, then the private functions its ops refer to."""
    printer = Printer([function])
    return "\n".join(printer.function(f, "") for f in printer.functions) + "\n"


MESHES = "sdy.meshes"
"""Key of `Module.attributes` for the text of `sdy.mesh` symbols."""

_I32 = ("tf.aliasing_output", "mhlo.num_partitions", "mhlo.num_replicas")
"""Integer attributes of arguments and modules that other tools expect as i32."""


class Printer:
    """Names values and functions; `functions` are the given ones and all they refer to."""

    def __init__(self, functions: Iterable[Function]):
        self.functions: list[Function] = []
        self.symbols: dict[Function, str] = {}
        self.names: dict[Value, str] = {}
        self._collect(functions)

    def _collect(self, roots: Iterable[Function]) -> None:
        taken: set[str] = set()
        queue = list(roots)
        for function in queue:
            if function not in self.symbols:
                self.symbols[function] = _fresh(function.name, taken)
                self.functions.append(function)
        for function in self.functions:
            for op in function.body.walk():
                for value in op.attributes.values():
                    if isinstance(value, Function) and value not in self.symbols:
                        self.symbols[value] = _fresh(value.name, taken)
                        self.functions.append(value)

    # -- functions and blocks

    def function(self, function: Function, indent: str) -> str:
        """The text of one function, without a final newline."""
        self.names = {}
        self._results = self._arguments = 0
        arguments = ", ".join(
            self.argument(a) + _attributes(extra) for a, extra in
            zip(function.arguments, function.argument_attributes, strict=False))
        results = [str(r.type) + _attributes(extra) for r, extra in
                   zip(function.returns, function.result_attributes, strict=False)]
        bare = len(results) == 1 and not function.result_attributes[0]
        arrow = f" -> {results[0] if bare else '(' + ', '.join(results) + ')'}" if results else ""
        visibility = "public" if function.public else "private"
        head = f"{indent}func.func {visibility} {write_symbol(self.symbols[function])}"
        body = self.body(function.body, indent + "  ", "return")
        return f"{head}({arguments}){arrow} {{\n{body}\n{indent}}}"

    def body(self, block: Block, indent: str, terminator: str = "stablehlo.return") -> str:
        """The ops of a block and its terminator, one per line."""
        lines = [indent + self.op(op, indent) for op in block.ops]
        values = ", ".join(self.name(v) for v in block.returns)
        types = ", ".join(str(v.type) for v in block.returns)
        lines.append(f"{indent}{terminator}" + (f" {values} : {types}" if values else ""))
        return "\n".join(lines)

    def region(self, block: Block, indent: str) -> str:
        """`{ ^bb0(...): ... }` of the generic form."""
        label = ""
        if block.arguments:
            label = f"{indent}^bb0({', '.join(map(self.argument, block.arguments))}):\n"
        return f"{{\n{label}{self.body(block, indent + '  ')}\n{indent}}}"

    # -- values

    def argument(self, value: Value) -> str:
        """Name a block argument: `%arg0: tensor<f32>`."""
        self.names[value] = f"%arg{self._arguments}"
        self._arguments += 1
        return f"{self.names[value]}: {value.type}"

    def name(self, value: Value) -> str:
        """The name of a value; one that is not defined here gets a name that says so."""
        if value not in self.names:
            self.names[value] = f"%undefined{len(self.names)}"
        return self.names[value]

    # -- ops

    def op(self, op: Op, indent: str) -> str:
        """`%0 = ...`, without the first indentation."""
        text = self._right_side(op, indent)
        if not op.results:
            return text
        name = f"%{self._results}"
        self._results += 1
        count = len(op.results)
        for i, result in enumerate(op.results):
            self.names[result] = name if count == 1 else f"{name}#{i}"
        return f"{name if count == 1 else f'{name}:{count}'} = {text}"

    def _right_side(self, op: Op, indent: str) -> str:
        try:
            form = FORMS.get(op.name)
            if form is not None:
                text = form.write(self, op, indent)
                if text is not None:
                    return text
            elif not op.regions:
                found = row_of(op.definition)
                if found is not None:
                    return write_row(self, op, found)
        except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError):
            pass  # An op that breaks its declaration is shown as it is.
        return self.generic(op, indent)

    def generic(self, op: Op, indent: str) -> str:
        """`"name"(operands) <{attributes}> ({regions}) : (types) -> types`."""
        operands = ", ".join(map(self.name, op.operands))
        attributes = self.dictionary(op)
        attributes = f" <{attributes}>" if attributes else ""
        regions = ", ".join(self.region(r, indent) for r in op.regions)
        regions = f" ({regions})" if regions else ""
        types = function_type([o.type for o in op.operands], [r.type for r in op.results])
        return f'"{op.name}"({operands}){attributes}{regions} : {types}'

    def dictionary(self, op: Op, skip: Iterable[str] = ()) -> str:
        """`{name = value}` of the attributes that are neither skipped nor implied by the types."""
        parts = []
        for name in sorted(set(op.attributes).difference(skip)):
            kind = kind_of(op.definition.attributes.get(name, ""))
            if kind.implied is None:
                parts.append(f"{write_name(name)} = {self.attribute(op, name)}")
        return "{" + ", ".join(parts) + "}" if parts else ""

    def attribute(self, op: Op, name: str) -> str:
        """The generic text of one attribute."""
        value = op.attributes[name]
        if isinstance(value, Function):
            return self.symbol(value)
        try:
            return kind_of(op.definition.attributes.get(name, "")).write(value)
        except (AttributeError, KeyError, TypeError, ValueError):
            return write_attribute(value)

    def symbol(self, function: Any) -> str:
        """`@name` of a function that is printed too, or of whatever stands in its place."""
        return write_symbol(self.symbols.get(function) or str(getattr(function, "name", "none")))


def _fresh(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate


def _attributes(values: Mapping[str, Any]) -> str:
    return f" {_argument_dictionary(values)}" if values else ""


def _argument_dictionary(values: Mapping[str, Any]) -> str:
    def write(name: str, value: Any) -> str:
        if name in _I32 and not isinstance(value, Verbatim):
            return f"{int(value)} : i32"
        return write_attribute(value)

    return "{" + ", ".join(f"{write_name(k)} = {write(k, v)}" for k, v in values.items()) + "}"
