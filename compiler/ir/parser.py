"""Parses StableHLO text (what JAX, StableHLO and tfn print) into a `Module`.

Recursive descent over the tokens of `ir/lexer.py`. Ops are read by their rows (`ir/syntax.py`),
forms (`ir/forms.py`) or generically; every op must be declared in `compiler/ops`. Nesting is
bounded, so hostile text ends in a `ParseError`, never in a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ParseError, UnsupportedError
from ..ops import dynamic  # noqa: F401  Declares the ops that only occur in text.
from ..ops.declare import REGISTRY
from .attribute_parser import AttributeParser
from .attributes import Kind, Symbol, Verbatim, kind_of
from .core import Block, Function, Module, Op, TensorType, Value
from .cursor import MAX_NESTING
from .forms import FORMS
from .lexer import Tokens
from .printer import MESHES
from .source_locations import SourceLocations
from .syntax import TYPE_STYLES, read_row, row_of
from .tuples import TUPLE_OPS, TupleOf, read_tuple_op
from .verify import verify_module

_IGNORED = frozenset({"result_accuracy"})
"""Hints about ops that never change what they mean."""

_SHORT_NAMES = {"call": "func.call", "constant": "stablehlo.constant"}


def parse_module(text: str, filename: str = "<text>") -> Module:
    """The module in `text`, which may also be bare functions.

    `filename` goes into errors and the locations of ops, unless the text has the user's own
    (`loc(...)`). Raises `ParseError` (malformed text, with
    line and column), `UnsupportedError` (an op or type tfn does not have) or `OpError` (an op that
    breaks a constraint of the specification). A `?` in a type reads as an unknown extent;
    `ir.dynamic.refine` gives such a function real ones.
    """
    module = Parser(Tokens(text, filename)).module()
    verify_module(module)
    return module


Argument = tuple[str, TensorType, dict[str, Any]]
"""Name, type and attributes of a block argument."""


class Parser(AttributeParser):
    """Also holds the values in scope and the functions seen so far."""

    def __init__(self, tokens: Tokens):
        super().__init__(tokens)
        self.scopes: list[dict[str, Value]] = []
        self.functions: dict[str, Function] = {}
        self.defined: set[str] = set()
        self.references: dict[str, int] = {}
        self.locations = SourceLocations()

    # -- modules and functions

    def module(self) -> Module:
        module = Module(name="main")
        self.top_level_aliases()
        if self.accept('"builtin.module"'):
            self.generic_module(module)
        elif self.accept("module") or self.accept("builtin.module"):
            if self.texts[self.index].startswith("@"):
                module.name = self.symbol_name()
            if self.accept("attributes"):
                module.attributes.update(self.dictionary())
            self.expect("{")
            self.symbols(module, end="}")
            self.expect("}")
        else:
            self.symbols(module, end="")
        self.location()
        self.top_level_aliases()
        if not self.at(""):
            raise self.unexpected("the end of the text")
        if not self.functions:
            raise self.error("the text defines no function")
        self.check_references()
        self.locations.resolve()
        for name, function in self.functions.items():
            if function.public or name not in self.references:
                module.functions[name] = function
        return module

    def symbols(self, module: Module, end: str) -> None:
        """Functions and meshes up to the token `end`."""
        while not self.at(end):
            if self.accept("sdy.mesh"):
                name = self.symbol_name()
                self.expect("=")
                module.attributes.setdefault(MESHES, {})[name] = Verbatim(self.balanced())
            elif self.accept("func.func") or self.accept("func"):
                self.function()
            elif self.accept('"func.func"'):
                self.generic_function()
            elif not self.top_level_aliases():
                raise self.unexpected("`func.func`" + (f" or `{end}`" if end else ""))
            self.location()

    def generic_module(self, module: Module) -> None:
        """`() <{sym_name = "m"}> ({ functions }) {attributes} : () -> ()`."""
        self.expect("(", ")")
        module.name = str(self.properties().get("sym_name", module.name))
        self.expect("(", "{")
        self.symbols(module, end="}")
        self.expect("}", ")")
        if self.at("{"):
            module.attributes.update(self.dictionary())
        self.expect(":", "(", ")", "->", "(", ")")

    def generic_function(self) -> None:
        """`() <{sym_name = "f", function_type = ...}> ({ body }) : () -> ()`."""
        self.expect("(", ")")
        place = self.index
        properties = self.properties()
        name, type = properties.get("sym_name"), properties.get("function_type")
        if not isinstance(name, str) or not isinstance(type, tuple):
            raise self.tokens.error(place, "a function needs sym_name and function_type")
        function = self.new_function(name, properties.get("sym_visibility") == "private")
        self.expect("(")
        body = self.function_body(None)
        self.expect(")")
        if self.at("{"):
            self.dictionary()
        self.expect(":", "(", ")", "->", "(", ")")
        self.check_results(function, body, type[1])
        function.body = body
        function.argument_attributes = _rows(properties.get("arg_attrs"), len(body.arguments))
        function.result_attributes = _rows(properties.get("res_attrs"), len(body.returns))

    def properties(self) -> dict[str, Any]:
        """`<{name = value}>`, if there are any."""
        if not self.at("<", "{"):
            return {}
        self.take()
        found = self.dictionary()
        self.expect(">")
        return found

    def top_level_aliases(self) -> bool:
        """`#name = attribute` lines."""
        found = False
        while self.texts[self.index].startswith("#") and self.texts[self.index + 1] == "=":
            name = self.take()
            self.expect("=")
            if self.at("loc"):
                self.locations.aliases[name] = self.location()
            else:
                self.aliases[name] = self.attribute()
            found = True
        return found

    def check_references(self) -> None:
        """Every function referred to is defined, and calls form no cycle and no deep chain."""
        for name, index in self.references.items():
            if name not in self.defined:
                raise self.tokens.error(index, f"there is no function @{name}")
        callees = {
            name: list(dict.fromkeys(v.name for op in f.body.walk()
                                     for v in op.attributes.values() if isinstance(v, Function)))
            for name, f in self.functions.items()}
        heights: dict[str, int] = {}
        for root in callees:
            stack = [root]
            open_names: set[str] = set()
            while stack:
                name = stack[-1]
                if name in heights:
                    stack.pop()
                    continue
                open_names.add(name)
                waiting = [c for c in callees[name] if c not in heights]
                cycle = next((c for c in waiting if c in open_names), None)
                if cycle is not None:
                    raise self.tokens.error(self.references[cycle],
                                            f"the function @{cycle} calls itself")
                if waiting:
                    stack.extend(waiting[:1])
                    continue
                heights[name] = 1 + max((heights[c] for c in callees[name]), default=0)
                if heights[name] > MAX_NESTING:
                    raise self.tokens.error(
                        self.references.get(name, 0),
                        f"calls are nested deeper than {MAX_NESTING} levels")
                open_names.discard(name)
                stack.pop()

    def reference(self, name: str) -> Function:
        """The function called `name`, which may be defined later."""
        self.references.setdefault(name, self.index - 1)
        return self.functions.setdefault(name, Function(name, Block(), public=False))

    def new_function(self, name: str, private: bool) -> Function:
        """The function that the text defines next; it may have been referred to before."""
        if name in self.defined:
            raise self.error(f"the function @{name} is defined twice", -1)
        self.defined.add(name)
        function = self.functions.setdefault(name, Function(name, Block()))
        function.public = not private
        return function

    def function(self) -> None:
        """`[visibility] @name(arguments) -> results attributes {...} { body }`."""
        private = self.accept("private")
        if not private:
            self.accept("public")
        place = self.index
        function = self.new_function(self.symbol_name(), private)
        arguments = self.arguments(named=None)
        types: list[TensorType] = []
        function.result_attributes = []
        if self.accept("->"):
            types, function.result_attributes = self.function_results()
        if self.accept("attributes"):
            self.dictionary()
        if not self.at("{"):
            raise self.tokens.error(place, f"@{function.name} is declared without a body",
                                    UnsupportedError)
        function.body = self.function_body(arguments)
        function.argument_attributes = [a for _, _, a in arguments]
        self.check_results(function, function.body, types)

    def function_body(self, arguments: Sequence[Argument] | None) -> Block:
        """A function sees no value from outside."""
        self.scopes, outer = [], self.scopes
        body = self.braced_region(arguments, terminators=("return", "func.return"))
        self.scopes = outer
        return body

    def check_results(self, function: Function, body: Block, types: list[TensorType]) -> None:
        got = [v.type for v in body.returns]
        if got != types:
            raise self.error(f"@{function.name} returns {_types(got)} but is declared to return"
                             f" {_types(types)}", -1)

    def function_results(self) -> tuple[list[TensorType], list[dict[str, Any]]]:
        if not self.accept("("):
            return [self.type()], [{}]
        types: list[TensorType] = []
        attributes: list[dict[str, Any]] = []
        while not self.accept(")"):
            if types:
                self.expect(",")
            types.append(self.type())
            attributes.append(self.dictionary() if self.at("{") else {})
            self.location()
        return types, attributes

    def arguments(self, named: bool | None = True) -> list[Argument]:
        """`(%a: T {attributes}, ...)`."""
        self.expect("(")
        found: list[Argument] = []
        while not self.accept(")"):
            if found:
                self.expect(",")
            if named is None and not self.texts[self.index].startswith("%"):
                found.append((f"%{len(found)}", self.type(), {}))
                continue
            name = self.new_name()
            self.expect(":")
            type = self.type()
            attributes = self.dictionary() if self.at("{") else {}
            self.location()
            found.append((name, type, attributes))
        return found

    # -- regions

    def region(self) -> Block:
        """A region of the generic form, `{ ^bb0(%a: T): ... }`."""
        return self.braced_region(None)

    def braced_region(self, arguments: Sequence[Argument] | None,
                      terminators: Sequence[str] = ("stablehlo.return",)) -> Block:
        """`{ ops terminator }` as a block; arguments None: they stand at its label, if any."""
        with self.nested():
            self.expect("{")
            if arguments is None:
                arguments = []
                if self.texts[self.index].startswith("^"):
                    self.take()
                    if self.at("("):
                        arguments = self.arguments()
                    self.expect(":")
            block = Block()
            self.scopes.append({})
            for name, type, _ in arguments:
                self.define(name, block.add_argument(type))
            self.ops(block, terminators)
            self.scopes.pop()
            if self.texts[self.index].startswith("^"):
                raise self.error("regions of several blocks are not supported",
                                 kind=UnsupportedError)
            self.expect("}")
            return block

    def ops(self, block: Block, terminators: Sequence[str]) -> None:
        while True:
            text = self.texts[self.index]
            if text in terminators or text.strip('"') in terminators:
                self.index += 1
                block.returns = self.returned(generic=text.startswith('"'))
                return
            if text.startswith("^"):
                raise self.error("regions of several blocks are not supported",
                                 kind=UnsupportedError)
            if text == "}" or not text:
                raise self.unexpected(f"an op or `{terminators[0]}`")
            self.op(block)

    def returned(self, generic: bool) -> list[Value]:
        values = self.operands_in_parentheses() if generic else self.operands()
        if generic:
            self.expect(":")
            listed = self.types_in_parentheses()
            self.expect("->", "(", ")")
        else:
            listed = self.types(len(values)) if values and self.accept(":") else []
        self.check_types(values, listed)
        self.location()
        return values

    def compact_region(self, name: str, type: TensorType) -> Block:
        """A region that applies an op to two values of a type."""
        block = Block([type, type])
        definition = self.definition(name)
        op = Op(definition, block.arguments, [type], {}, (), self.tokens.location(self.index - 1))
        block.ops.append(op)
        block.returns = [op.result]
        return block

    # -- values

    def define(self, name: str, value: Value) -> None:
        if any(name in scope for scope in self.scopes):
            raise self.error(f"{name} is defined twice", -1)
        self.scopes[-1][name] = value

    def new_name(self) -> str:
        name = self.prefixed("%", "a value such as %0")
        if "#" in name:
            raise self.error(f"{name} cannot be defined by name", -1)
        return name

    def operand(self) -> Value:
        value = self.any_operand()
        if isinstance(value, TupleOf):
            raise self.error("tuples are supported only as operands of get_tuple_element", -1,
                             UnsupportedError)
        return value

    def any_operand(self) -> Value | TupleOf:
        name = self.prefixed("%", "a value such as %0")
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        raise self.error(f"{name} is not defined here", -1)

    def operands(self) -> list[Value]:
        """`%a, %b`, possibly none."""
        values: list[Value] = []
        while self.texts[self.index].startswith("%"):
            values.append(self.operand())
            if not (self.at(",") and self.texts[self.index + 1].startswith("%")):
                break
            self.index += 1
        return values

    def operands_in_parentheses(self) -> list[Value]:
        self.expect("(")
        values = self.operands()
        self.expect(")")
        return values

    def op_types(self, operands: Sequence[Value], style: str) -> list[TensorType]:
        """`: types`; checks the operands' and returns the results'."""
        if style == "none" and not self.at(":"):
            return []
        self.expect(":")
        if self.at("("):
            listed = self.types_in_parentheses()
            self.check_types(operands, listed)
            self.expect("->")
            return self.results()
        listed = self.types()
        if self.accept("->"):
            self.check_types(operands, listed)
            return self.results()
        results = TYPE_STYLES[style][1](listed)
        if results is None:
            raise self.error("expected the types of operands and results, (A, B) -> C", -1)
        if style in ("function", "same"):  # One type for all.
            self.check_types(operands, listed * len(operands))
        elif style == "pairwise":
            self.check_types(operands, listed)
        return results

    def check_types(self, values: Sequence[Value], listed: Sequence[TensorType]) -> None:
        if len(values) != len(listed):
            raise self.error(f"{len(values)} operands with {len(listed)} types", -1)
        for i, (value, type) in enumerate(zip(values, listed, strict=True)):
            if value.type != type:
                raise self.error(
                    f"operand {i} is a {value.type} where it is defined, a {type} here", -1)

    # -- ops

    def definition(self, name: str, offset: int = -1):
        found = REGISTRY.get(name)
        if found is None:
            known = "." in name
            raise self.error(
                f"the op `{name}` is not supported" if known else f"`{name}` is not an op",
                offset, UnsupportedError if known else ParseError)
        return found

    def take_op_name(self) -> str:
        text = self.take()
        if not (text[0].isalpha() or text[0] == '"'):
            raise self.error(f"expected an op, got `{text[:40]}`", -1)
        name = text.strip('"')
        return _SHORT_NAMES.get(name, name)

    def op(self, block: Block) -> None:
        names = self.result_names()
        place = self.index
        generic = self.texts[place].startswith('"')
        name = self.take_op_name()
        if name in TUPLE_OPS:
            read_tuple_op(self, name, names)
            return
        definition = self.definition(name)
        if generic:
            operands, attributes, regions, types = self.generic(definition)
        elif definition.name in FORMS:
            operands, attributes, regions, types = FORMS[definition.name].read(self, definition)
        else:
            form = row_of(definition)
            if form is None:
                raise self.tokens.error(
                    place, f'expected the generic form, "{definition.name}"(...)')
            operands, attributes, types = read_row(self, definition, form)
            regions = []
        source = self.location()
        self.complete(definition, attributes, operands, types, place)
        op = Op(definition, operands, types, attributes, regions, self.tokens.location(place))
        block.ops.append(op)
        if source:
            self.locations.noted.append((op, source))
        self.name_results(names, op)

    def result_names(self) -> list[tuple[str, int]]:
        """`%a, %b:2 =`: names and how many results each stands for."""
        names: list[tuple[str, int]] = []
        while self.texts[self.index].startswith("%"):
            name = self.new_name()
            names.append((name, self.integer() if self.accept(":") else 1))
            if not self.accept(","):
                break
        if names:
            self.expect("=")
        return names

    def name_results(self, names: list[tuple[str, int]], op: Op) -> None:
        count = sum(n for _, n in names)
        if names and count != len(op.results):
            raise self.error(f"{op.name} has {len(op.results)} results, {count} are named", -1)
        results = iter(op.results)
        for name, number in names:
            if number == 1:
                self.define(name, next(results))
                continue
            for i in range(number):
                self.define(f"{name}#{i}", next(results))

    def complete(self, definition, attributes: dict[str, Any], operands, types, place) -> None:
        """Fill in attributes that the result types imply; refuse an op that lacks one."""
        for name, kind_name in definition.attributes.items():
            implied = kind_of(kind_name).implied
            if kind_of(kind_name).every:
                attributes[name] = tuple(types)
            elif implied is not None and types:
                value = implied(types[-1])
                if name not in definition.optional or (
                        operands and value != implied(operands[0].type)):
                    attributes[name] = value
            elif name not in attributes and name not in definition.optional:
                raise self.tokens.error(place, f"{definition.name} needs the attribute `{name}`")

    def generic(self, definition):
        """`(operands) <{attributes}> ({regions}) {attributes} : types`."""
        operands = self.operands_in_parentheses()
        attributes: dict[str, Any] = {}
        if self.at("<", "{"):
            self.take()
            attributes.update(self.op_dictionary(definition))
            self.expect(">")
        regions: list[Block] = []
        if self.at("(", "{"):
            self.take()
            regions.append(self.region())
            while self.accept(","):
                regions.append(self.region())
            self.expect(")")
        attributes.update(self.op_dictionary(definition))
        if not self.at(":"):
            raise self.unexpected("`:` and the types of the op")
        return operands, attributes, regions, self.op_types(operands, "function")

    def op_dictionary(self, definition) -> dict[str, Any]:
        """An op's `{name = value}`, if there is one, converted by the op's attribute kinds."""
        converted: dict[str, Any] = {}
        if not self.at("{"):
            return converted
        for name, raw, place in self.entries():
            kind_name = definition.attributes.get(name)
            if kind_name is not None:
                if kind_of(kind_name).implied is None:
                    converted[name] = self.convert(kind_of(kind_name), raw, name, place)
            elif "." not in name and name not in _IGNORED:
                raise self.tokens.error(
                    place, f"the attribute `{name}` of {definition.name} is not supported",
                    UnsupportedError)
        return converted

    def attribute_of(self, definition, name: str) -> Any:
        """The value of the op's attribute `name`, in its kind."""
        return self.attribute_as(definition.attributes.get(name, "opaque"), name)

    def attribute_as(self, kind: str, name: str) -> Any:
        place = self.index
        return self.convert(kind_of(kind), self.attribute(), name, place)

    def convert(self, kind: Kind, raw: Any, name: str, place: int) -> Any:
        try:
            value = kind.read(raw)
        except (TypeError, ValueError) as error:
            raise self.tokens.error(place, f"`{name}` must be {error}") from None
        return self._resolved(value, place)

    def _resolved(self, value: Any, place: int) -> Any:
        """`value` with functions in place of their names."""
        if isinstance(value, Symbol):
            self.references.setdefault(value.name, place)
            return self.reference(value.name)
        if isinstance(value, tuple) and value and isinstance(value[0], (Symbol, tuple)):
            return tuple(self._resolved(v, place) for v in value)
        return value


def _rows(attributes: Any, count: int) -> list[dict[str, Any]]:
    """Attributes per argument or result of a function in generic form."""
    return list(attributes) if attributes else [{} for _ in range(count)]


def _types(types: Sequence[TensorType]) -> str:
    return ", ".join(map(str, types)) or "nothing"
