"""The emitter: LLVM text for the value of an IR element, computed on demand.

`at(value, index)` gives the register that holds an element. Operands of the kernel are loaded;
results of ops inside it are computed by the op's own `scalar` or `element` rule, which asks for the
elements it needs in turn. Within a scope each element is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Block, Location, Op, Value
from ..ir.dims import Extent
from ..ir.dtypes import F16, F32, MINIFLOATS, DType
from ..ops.reduction import combiner
from . import mathlib
from .accumulator import Accumulator, accumulator
from .extents import Extents
from .quotient import corrected, has_reciprocal, quotient
from .target import Target
from .text import Index, Text, literal, register_type, suffix
from .work import Work

# Scalars that may shape the code; any other float constant is a run-time argument, so that 1/batch
# or a learning rate does not make a new kernel.
_INLINE = {0.0, 1.0, -1.0, float("inf"), float("-inf")}

_SUMS = {"add": "fadd", "multiply": "fmul"}
"""Combiners of floats whose order is open."""

# Float ops LLVM may contract into FMA, inside one kernel.
_CONTRACTED = {"fadd", "fsub", "fmul"}


@dataclass
class Phase:
    """The code of a phase: how its tasks divide, what runs once at its start, and the rest."""

    work: Work
    entry: list[str]
    lines: list[str]


@dataclass
class Outline:
    """A function that phases call: its parameters before those of the kernel, and its code."""

    name: str
    parameters: tuple[str, ...]
    entry: list[str]
    lines: list[str]


class Emitter(Text):
    """Emits one kernel. `extents` names the sizes, `pointers` the buffers of operands."""

    def __init__(self, extents: Extents, pointers: dict[Value, str], target: Target):
        super().__init__()
        self.target = target
        self.extents = extents
        self.pointers = pointers
        self.scalars: list[tuple[Any, DType]] = []
        self._scalar_numbers: dict[Any, int] = {}
        self.phases: list[Phase] = []
        self.outlines: list[Outline] = []
        self.finished = False
        """Phases need no more of LLVM's passes than micro-kernels do: see `native.py`."""
        self.entry: list[str] = []
        self.functions: set[str] = set()
        self.definitions: dict[str, str] = {}
        """Functions of the kernel's own, by name."""
        self._scopes: list[dict[Any, Any]] = [{}]
        self._scalar_registers: dict[Any, str] = {}
        self._bound: dict[Value, str] = {}
        self.reciprocals: dict[Value, str] = {}
        """Registers of 1 / c for divisors c that quotients may be made with (`quotient.py`)."""
        self._widened: dict[tuple[str, DType], str] = {}
        self.location: Location | None = None
        self.scratch_bytes: Extent = 0
        self.lane_bytes = 0

    # -- phases -----------------------------------------------------------------------------------

    @contextmanager
    def phase(self, work: Work):
        """Code for the tasks from `%first` to before `%last` of `work`, run by the thread `%lane`.

        All tasks of a phase are done before the next phase begins.
        """
        with self.elsewhere() as (entry, lines):
            yield
        self.phases.append(Phase(work, entry, lines))

    @contextmanager
    def elsewhere(self):
        """Emit a function: its entry block and its other lines, which know no register of before."""
        before = (self.lines, self.entry, self.current, self._scopes, self._scalar_registers)
        self.lines, self.entry, self.current = [], [], "start"
        self._scopes, self._scalar_registers = [{}], {}
        yield self.entry, self.lines
        self.lines, self.entry, self.current, self._scopes, self._scalar_registers = before

    @contextmanager
    def counted_anew(self):
        """Registers are numbered from the start: the text of a function does not tell what is around
        it."""
        before = self._count, self._widened
        self._count, self._widened = 0, {}
        yield
        self._count, self._widened = before

    # -- scopes -----------------------------------------------------------------------------------

    @contextmanager
    def scope(self):
        """Values computed inside do not dominate what follows; forget them at the end."""
        self._scopes.append({})
        yield
        self._scopes.pop()

    def _recall(self, key):
        for scope in reversed(self._scopes):
            if key in scope:
                return scope[key]
        return None

    # -- elements ---------------------------------------------------------------------------------

    def extent(self, value: Value, dim: int) -> Index:
        return self.extents.name(value, dim)

    def linear(self, value: Value, index: Sequence[Index]) -> Index:
        """The row-major position of an element."""
        position: Index = 0
        for d, i in enumerate(index):
            position = self.iadd(self.imul(position, self.extent(value, d)), i)
        return position

    def split(self, position: Index, value: Value, dims: int) -> list[Index]:
        """A row-major position among the leading `dims` of `value` as an index of them."""
        index: list[Index] = []
        for d in range(dims - 1, 0, -1):
            extent = self.imax(self.extent(value, d), 1)
            index.insert(0, self.irem(position, extent))
            position = self.idiv(position, extent)
        return [position, *index]

    def at(self, value: Value, index: Sequence[Index]) -> str:
        """The register of `value[index]`."""
        if value in self._bound:
            return self._bound[value]
        key = (value, tuple(index))
        found = self._recall(key)
        if found is not None:
            return found
        if value in self.pointers:
            register = self.load(value, index)
        else:
            register = self._compute(value, index)
        self._scopes[-1][key] = register
        return register

    def knows(self, value: Value, index: Sequence[Index]) -> bool:
        """Was `value[index]` asked for in this scope or one around it?"""
        return self._recall((value, tuple(index))) is not None

    @contextmanager
    def given(self, value: Value, register: str):
        """Inside, `register` is the element of `value`, whatever the index."""
        self._bound[value] = register
        yield
        del self._bound[value]

    def _compute(self, value: Value, index: Sequence[Index]) -> str:
        op = value.op
        assert op is not None, "a block argument without a pointer"
        definition = op.definition
        self.location = op.location
        if getattr(definition, "scalar", None) is not None:
            operands = [self.at(o, index if o.shape else []) for o in op.operands]
            return self._scalar(op, operands)
        if definition.element is None:
            raise UnsupportedError(f"{op.name} cannot be compiled yet", op.location)
        if len(op.results) == 1:
            result = definition.element(self, op, list(index))
            return result[0] if isinstance(result, list) else result
        registers = definition.element(self, op, list(index), value.index)
        for result, register in zip(op.results, registers, strict=True):
            self._scopes[-1][(result, tuple(index))] = register
        return registers[value.index]

    def _scalar(self, op: Op, operands: Sequence[str]) -> str:
        attributes = {k: op.attributes[k] for k in op.definition.attributes if k in op.attributes}
        source = op.operands[-1].dtype
        if op.name == "stablehlo.divide" and op.operands[1] in self.reciprocals:
            x, c = operands
            return corrected(self, x, c, self.reciprocals[op.operands[1]])
        if self.target.has_fma and has_reciprocal(op):
            return quotient(self, op, operands)
        register = op.definition.rule("scalar")(self, source, *operands, **attributes)
        return self.rounded(register, op.result.dtype)

    def rounded(self, register: str, dtype: DType) -> str:
        """Round an f32 register to the narrow float it stands for."""
        if dtype.is_float and dtype.is_narrow:
            return self.widened(self.narrowed(register, dtype), dtype)
        return register

    def narrowed(self, register: str, dtype: DType) -> str:
        """The f32 `register` rounded to the narrow float type `dtype`."""
        if (register, dtype) in self._widened:
            return self._widened[register, dtype]
        if dtype in MINIFLOATS:
            return self._minifloat("narrow", dtype, f"float {register}", "i8")
        if dtype.llvm != "bfloat":
            return self.inst(f"fptrunc float {register} to {dtype.llvm}")
        # On bits: without AVX512-BF16, LLVM would call a compiler library nobody links.
        bits = self.inst(f"bitcast float {register} to i32")
        top = self.inst(f"lshr i32 {bits}, 16")
        odd = self.inst(f"and i32 {top}, 1")
        half = self.inst(f"add i32 {odd}, 32767")
        even = self.inst(f"lshr i32 {self.inst(f'add i32 {bits}, {half}')}, 16")
        nan = self.inst(f"fcmp uno float {register}, {register}")
        quiet = self.inst(f"or i32 {top}, 64")
        chosen = self.inst(f"select i1 {nan}, i32 {quiet}, i32 {even}")
        return self.inst(f"bitcast i16 {self.inst(f'trunc i32 {chosen} to i16')} to bfloat")

    def widened(self, register: str, dtype: DType) -> str:
        """A narrow float as an f32."""
        if dtype in MINIFLOATS:
            wide = self._minifloat("widen", dtype, f"i8 {register}", "float")
        elif dtype.llvm == "bfloat":
            # On bits, too: LLVM narrows what follows an `fpext`, and AVX512-BF16 loses subnormals.
            bits = self.inst(f"zext i16 {self.inst(f'bitcast bfloat {register} to i16')} to i32")
            wide = self.inst(f"bitcast i32 {self.inst(f'shl i32 {bits}, 16')} to float")
        else:
            wide = self.inst(f"fpext {dtype.llvm} {register} to float")
        # What is widened only to be stored again, a rounded result most often, is not rounded twice.
        self._widened[wide, dtype] = register
        return wide

    def _minifloat(self, what: str, dtype: DType, operand: str, kind: str) -> str:
        symbol = f"tfn.{what}.{dtype.name}"
        self.functions.add(symbol)
        return self.inst(f"call {kind} @{symbol}({operand})")

    def pointer(self, value: Value, index: Sequence[Index]) -> str:
        position = self.linear(value, index)
        base = self.pointers[value]
        if position == 0:
            return base
        return self.inst(
            f"getelementptr inbounds {value.dtype.storage}, ptr {base}, i64 {position}")

    def load(self, value: Value, index: Sequence[Index]) -> str:
        return self.load_from(self.pointer(value, index), value.dtype)

    def load_from(self, pointer: str, dtype: DType) -> str:
        raw = self.inst(f"load {dtype.storage}, ptr {pointer}, align {_alignment(dtype)}")
        if dtype.kind == "bool":
            return self.inst(f"icmp ne i8 {raw}, 0")
        if dtype.is_float and dtype.is_narrow:
            return self.widened(raw, dtype)
        return self.inst(f"trunc i8 {raw} to {dtype.llvm}") if dtype.is_narrow else raw

    def store_to(self, pointer: str, dtype: DType, register: str) -> None:
        if dtype.kind == "bool":
            register = self.inst(f"zext i1 {register} to i8")
        elif dtype.is_float and dtype.is_narrow:
            register = self.narrowed(register, dtype)
        elif dtype.is_narrow:
            register = self.inst(f"zext {dtype.llvm} {register} to i8")
        self.do(f"store {dtype.storage} {register}, ptr {pointer}, align {_alignment(dtype)}")

    def _refuse_complex(self, dtype: DType) -> None:
        if dtype.kind == "complex":
            raise UnsupportedError(f"compiled code for {dtype} is not supported yet; run eagerly",
                                   self.location)

    # -- constants --------------------------------------------------------------------------------

    def constant(self, value, dtype: DType) -> str:
        return literal(value, dtype)

    def constant_element(self, op: Op, index) -> str:
        """A splat constant: inlined when it may shape the code, else a run-time scalar."""
        array = op.attributes["value"]
        value = array.reshape(-1)[0] if array.size else np.zeros((), array.dtype)[()]
        dtype = op.result.dtype
        if not dtype.is_float or float(value) in _INLINE or value != value:
            return literal(value, dtype)
        return self.run_time(value, dtype)

    def run_time(self, value: Any, dtype: DType) -> str:
        """A number that is not part of the code, but an argument."""
        key = (float(value), dtype)
        register = self._scalar_registers.get(key)
        if register is None:
            number = self._scalar_numbers.setdefault(key, len(self.scalars))
            if number == len(self.scalars):
                self.scalars.append((value, dtype))
            wide = "double" if dtype.bits == 64 else "float"
            self.entry.append(f"  %sp{number} = getelementptr i64, ptr %scalars, i64 {number}")
            self.entry.append(f"  %s{number} = load {wide}, ptr %sp{number}, align 8")
            register = self._scalar_registers[key] = f"%s{number}"
        return register

    # -- instructions -----------------------------------------------------------------------------

    def type(self, dtype: DType) -> str:
        return register_type(dtype)

    def unary(self, opcode: str, dtype: DType, x: str) -> str:
        return self.inst(f"{opcode} {register_type(dtype)} {x}")

    def binary(self, opcode: str, dtype: DType, x: str, y: str) -> str:
        self._refuse_complex(dtype)
        flags = " contract" if opcode in _CONTRACTED else ""
        return self.inst(f"{opcode}{flags} {register_type(dtype)} {x}, {y}")

    def compare(self, predicate: str, dtype: DType, x: str, y: str) -> str:
        self._refuse_complex(dtype)
        return self.inst(f"{'fcmp' if dtype.is_float else 'icmp'} {predicate}"
                         f" {register_type(dtype)} {x}, {y}")

    def compare_total(self, predicate: str, dtype: DType, x: str, y: str) -> str:
        """Compare floats by the total order of their bits, negative numbers reversed."""
        kind, word = register_type(dtype), f"i{64 if dtype.bits == 64 else 32}"
        keys = []
        for register in (x, y):
            bits = self.inst(f"bitcast {kind} {register} to {word}")
            sign = self.inst(f"ashr {word} {bits}, {int(word[1:]) - 1}")
            mask = self.inst(f"lshr {word} {sign}, 1")
            keys.append(self.inst(f"xor {word} {bits}, {mask}"))
        return self.inst(f"icmp {predicate} {word} {keys[0]}, {keys[1]}")

    def select(self, condition: str, dtype: DType, x: str, y: str) -> str:
        kind = register_type(dtype)
        return self.inst(f"select i1 {condition}, {kind} {x}, {kind} {y}")

    def intrinsic(self, name: str, dtype: DType, *operands: str) -> str:
        self._refuse_complex(dtype)
        kind = register_type(dtype)
        full = f"llvm.{name}.{suffix(dtype)}"
        self.declare(f"declare {kind} @{full}({', '.join([kind] * len(operands))})")
        return self.inst(f"call {kind} @{full}({', '.join(f'{kind} {o}' for o in operands)})")

    def math(self, name: str, dtype: DType, *operands: str) -> str:
        """An elementary function of `mathlib`."""
        self._refuse_complex(dtype)
        if dtype.is_integer:
            if name != "pow":
                raise UnsupportedError(f"{name} of {dtype} is not supported yet", self.location)
            return self._integer_power(dtype, *operands)
        symbol = mathlib.function_name(name, dtype.bits == 64)
        self.functions.add(symbol)
        kind = register_type(dtype)
        result = self.inst(f"call {kind} @{symbol}({', '.join(f'{kind} {o}' for o in operands)})")
        if kind == "float" and name in mathlib.THROUGH_DOUBLE and self.extents.hold(F16):
            # Or, before a conversion to half, LLVM rounds the double to half at once, by a function of
            # a compiler library. Loops are not vectorised around a fence.
            self.declare("declare float @llvm.arithmetic.fence.f32(float)")
            result = self.inst(f"call float @llvm.arithmetic.fence.f32(float {result})")
        return result

    def _integer_power(self, dtype: DType, x: str, y: str) -> str:
        """x**y by squaring, wrapping; a negative exponent gives 0 unless x is 1 or -1."""
        kind = dtype.llvm
        result, base, left = (self.cell(kind) for _ in range(3))
        for cell, value in ((result, "1"), (base, x), (left, y)):
            self.do(f"store {kind} {value}, ptr {cell}")
        with self.repeat(lambda: self.inst(
                f"icmp {'sgt' if dtype.kind == 'int' else 'ne'} {kind}"
                f" {self.inst(f'load {kind}, ptr {left}')}, 0")):
            exponent = self.inst(f"load {kind}, ptr {left}")
            power = self.inst(f"load {kind}, ptr {base}")
            old = self.inst(f"load {kind}, ptr {result}")
            odd = self.inst(f"trunc {kind} {exponent} to i1")
            product = self.inst(f"mul {kind} {old}, {power}")
            chosen = self.inst(f"select i1 {odd}, {kind} {product}, {kind} {old}")
            self.do(f"store {kind} {chosen}, ptr {result}")
            self.do(f"store {kind} {self.inst(f'mul {kind} {power}, {power}')}, ptr {base}")
            self.do(f"store {kind} {self.inst(f'lshr {kind} {exponent}, 1')}, ptr {left}")
        value = self.inst(f"load {kind}, ptr {result}")
        if dtype.kind != "int":
            return value
        even = self.inst(f"icmp eq {kind} {self.inst(f'and {kind} {y}, 1')}, 0")
        sign = self.inst(f"select i1 {even}, {kind} 1, {kind} -1")
        inverse = self.inst(f"select i1 {self.inst(f'icmp eq {kind} {x}, -1')},"
                            f" {kind} {sign}, {kind} 0")
        inverse = self.inst(f"select i1 {self.inst(f'icmp eq {kind} {x}, 1')},"
                            f" {kind} 1, {kind} {inverse}")
        negative = self.inst(f"icmp slt {kind} {y}, 0")
        return self.inst(f"select i1 {negative}, {kind} {inverse}, {kind} {value}")

    def count_bits(self, intrinsic: str, dtype: DType, x: str) -> str:
        """`ctpop` or `ctlz` of an integer."""
        kind, name = dtype.llvm, f"llvm.{intrinsic}.{dtype.llvm}"
        flag = ", i1" if intrinsic == "ctlz" else ""
        self.declare(f"declare {kind} @{name}({kind}{flag})")
        return self.inst(f"call {kind} @{name}({kind} {x}{flag and ', i1 false'})")

    def multiply_high(self, dtype: DType, x: str, y: str) -> str:
        """The upper half of the double-width product."""
        # LLVM stops the process at vectors of products of 2 or 4 bits: those are wide from the start.
        kind, double = dtype.llvm, f"i{max(2 * dtype.bits, 32)}"
        extend = "sext" if dtype.kind == "int" else "zext"
        a, b = (self.inst(f"{extend} {kind} {v} to {double}") for v in (x, y))
        high = self.inst(f"lshr {double} {self.inst(f'mul {double} {a}, {b}')}, {dtype.bits}")
        return self.inst(f"trunc {double} {high} to {kind}")

    def reduce_precision(self, dtype: DType, format, x: str) -> str:
        """Round a float register to `format` (`ops.bits.Format`)."""
        kind, word = register_type(dtype), f"i{format.word}"
        bits = self.inst(f"bitcast {kind} {x} to {word}")
        sign = self.inst(f"and {word} {bits}, {format.sign}")
        size = self.inst(f"and {word} {bits}, {format.sign - 1}")
        if format.dropped:
            odd = self.inst(f"and {word} {self.inst(f'lshr {word} {size}, {format.dropped}')}, 1")
            up = self.inst(f"add {word} {self.inst(f'add {word} {size}, {odd}')}, {format.half}")
            size = self.inst(f"and {word} {up}, {-(1 << format.dropped)}")
        if format.clamps:
            large = self.inst(f"icmp uge {word} {size}, {format.overflow}")
            small = self.inst(f"icmp ult {word} {size}, {format.smallest}")
            size = self.inst(f"select i1 {small}, {word} 0, {word} {size}")
            size = self.inst(f"select i1 {large}, {word} {format.infinity}, {word} {size}")
        result = self.inst(f"bitcast {word} {self.inst(f'or {word} {size}, {sign}')} to {kind}")
        nan = self.inst(f"fcmp uno {kind} {x}, {x}")
        return self.inst(f"select i1 {nan}, {kind} {x}, {kind} {result}")

    def safe_divide(self, which: str, dtype: DType, x: str, y: str) -> str:
        """Integer `div` or `rem` that never traps: x/0 = -1, x%0 = x, MIN/-1 = MIN."""
        kind, signed = dtype.llvm, dtype.kind == "int"
        zero = self.inst(f"icmp eq {kind} {y}, 0")
        unsafe = zero
        if signed:
            lowest = -(1 << (dtype.bits - 1))
            overflow = self.all([self.inst(f"icmp eq {kind} {x}, {lowest}"),
                                 self.inst(f"icmp eq {kind} {y}, -1")])
            unsafe = self.inst(f"or i1 {zero}, {overflow}")
        divisor = self.inst(f"select i1 {unsafe}, {kind} 1, {kind} {y}")
        result = self.inst(f"{'s' if signed else 'u'}{which} {kind} {x}, {divisor}")
        instead = "-1" if which == "div" else x
        return self.inst(f"select i1 {zero}, {kind} {instead}, {kind} {result}")

    def shift(self, opcode: str, dtype: DType, x: str, y: str) -> str:
        """A shift whose amount may be anything: too much gives 0 (or the sign for `ashr`)."""
        kind = dtype.llvm
        if opcode == "ashr":
            amount = self.intrinsic("umin", dtype, y, str(dtype.bits - 1))
            return self.inst(f"ashr {kind} {x}, {amount}")
        inside = self.inst(f"icmp ult {kind} {y}, {dtype.bits}")
        amount = self.inst(f"select i1 {inside}, {kind} {y}, {kind} 0")
        shifted = self.inst(f"{opcode} {kind} {x}, {amount}")
        return self.inst(f"select i1 {inside}, {kind} {shifted}, {kind} 0")

    def convert(self, x: str, source: DType, target: DType) -> str:
        """Change the dtype of a register with the semantics of `stablehlo.convert`."""
        self._refuse_complex(source)
        self._refuse_complex(target)
        a, b = register_type(source), register_type(target)
        if target.kind == "bool":
            if source.kind == "bool":
                return x
            return self.compare("une" if source.is_float else "ne", source, x,
                                literal(0, source))
        if source.is_float and target.is_float:
            if a == b:
                return x
            if target.is_narrow:
                return self._to_odd(x)
            return self.inst(f"{'fpext' if target.bits == 64 else 'fptrunc'} {a} {x} to {b}")
        if source.is_float:
            sign = "s" if target.kind == "int" else "u"
            if target.bits < 32 and a == "float":
                return self._to_small_integer(x, target)
            name = f"llvm.fpto{sign}i.sat.{b}.{suffix(source)}"
            self.declare(f"declare {b} @{name}({a})")
            return self.inst(f"call {b} @{name}({a} {x})")
        signed = source.kind == "int"
        if target.is_float:
            return self.inst(f"{'s' if signed else 'u'}itofp {a} {x} to {b}")
        width = 1 if source.kind == "bool" else source.bits
        if target.bits == width:
            return x
        if target.bits < width:
            return self.inst(f"trunc {a} {x} to {b}")
        return self.inst(f"{'sext' if signed else 'zext'} {a} {x} to {b}")

    def _to_small_integer(self, x: str, target: DType) -> str:
        """A float as an integer of at most 16 bits: NaN is 0, the rest is clamped. Through i32, which
        vectors of floats convert to; LLVM takes the saturating conversion apart."""
        low = -(1 << (target.bits - 1)) if target.kind == "int" else 0
        high = (1 << (target.bits - (target.kind == "int"))) - 1
        nan = self.inst(f"fcmp uno float {x}, {x}")
        x = self.inst(f"select i1 {nan}, float 0.0, float {x}")
        for predicate, bound in (("olt", low), ("ogt", high)):
            limit = literal(bound, F32)
            beyond = self.inst(f"fcmp {predicate} float {x}, {limit}")
            x = self.inst(f"select i1 {beyond}, float {limit}, float {x}")
        return self.inst(f"trunc i32 {self.inst(f'fptosi float {x} to i32')} to {target.llvm}")

    def _to_odd(self, x: str) -> str:
        """A double as a float that rounds to a narrow type as the double does: where it is not exact,
        the last bit is set."""
        near = self.inst(f"fptrunc double {x} to float")
        back = self.inst(f"fpext float {near} to double")
        exact = self.inst(f"fcmp ueq double {back}, {x}")
        self.declare("declare double @llvm.fabs.f64(double)")
        sizes = [self.inst(f"call double @llvm.fabs.f64(double {v})") for v in (back, x)]
        up = self.inst(f"zext i1 {self.inst(f'fcmp ogt double {sizes[0]}, {sizes[1]}')} to i32")
        bits = self.inst(f"bitcast float {near} to i32")
        odd = self.inst(f"or i32 {self.inst(f'sub i32 {bits}, {up}')}, 1")
        return self.inst(f"bitcast i32 {self.inst(f'select i1 {exact}, i32 {bits}, i32 {odd}')}"
                         " to float")

    def bitcast(self, x: str, source: DType, target: DType) -> str:
        if source.is_float and source.is_narrow:
            x = self.narrowed(x, source)
        if source.llvm != target.llvm:
            # Bits of a float of less than a byte are a byte, those of an integer are not.
            how = "bitcast"
            if source.is_narrow and target.is_narrow and source.bits < 8:
                how = "zext" if source.is_integer else "trunc"
            x = self.inst(f"{how} {source.llvm} {x} to {target.llvm}")
        if target.is_float and target.is_narrow:
            x = self.widened(x, target)
        return x

    def to_index(self, register: str, dtype: DType) -> Index:
        """An integer register as an i64 index."""
        if dtype.bits == 64 and dtype.kind == "uint":
            # Indices are signed; beyond their range is out of bounds all the same.
            self.declare("declare i64 @llvm.umin.i64(i64, i64)")
            return self.inst(f"call i64 @llvm.umin.i64(i64 {register}, i64 {(1 << 63) - 1})")
        if dtype.bits == 64:
            return register
        return self.inst(
            f"{'sext' if dtype.kind == 'int' else 'zext'} {dtype.llvm} {register} to i64")

    def index_to(self, index: Index, dtype: DType) -> str:
        """An index as an element of `dtype`."""
        if isinstance(index, int) and not (dtype.is_float and dtype.is_narrow):
            return literal(index, dtype)
        if dtype.is_float:
            return self.rounded(self.inst(f"sitofp i64 {index} to {register_type(dtype)}"), dtype)
        if dtype.bits == 64:
            return str(index)
        return self.inst(f"trunc i64 {index} to {dtype.llvm}")

    # -- control ----------------------------------------------------------------------------------

    def conditional(self, condition: str, dtype: DType, then: Callable[[], str],
                    otherwise: Callable[[], str]) -> str:
        """The element `then()` or `otherwise()` of `dtype`; only the chosen one is computed."""
        return self.branch(condition, register_type(dtype), then, otherwise)

    def branch(self, condition: str, kind: str, then: Callable[[], str],
               otherwise: Callable[[], str]) -> str:
        """`conditional` for a value of the LLVM type `kind`."""
        yes, no, join = (self.fresh(p) for p in ("then", "else", "join"))
        self.do(f"br i1 {condition}, label %{yes}, label %{no}")
        arms = []
        for label, arm in ((yes, then), (no, otherwise)):
            self.block(label)
            with self.scope():
                value = arm()
            arms.append((value, self.current))
            self.do(f"br label %{join}")
        self.block(join)
        return self.inst(f"phi {kind} "
                         + ", ".join(f"[{value}, %{block}]" for value, block in arms))

    @contextmanager
    def repeat(self, condition: Callable[[], str]):
        """`while condition():` around the body; what it computes is forgotten afterwards."""
        head, body, done = (self.fresh(p) for p in ("while", "again", "done"))
        self.do(f"br label %{head}")
        self.block(head)
        with self.scope():
            self.do(f"br i1 {condition()}, label %{body}, label %{done}")
            self.block(body)
            yield
            self.do(f"br label %{head}")
        self.block(done)

    def cell(self, kind: str) -> str:
        """A mutable variable of the LLVM type `kind`, as a pointer."""
        name = f"%{self.fresh('cell')}"
        self.entry.append(f"  {name} = alloca {kind}, align {64 if kind.startswith('<') else 8}")
        return name

    def scratch(self, size: Extent) -> str:
        """The kernel's scratch memory of `size` bytes, 64-byte aligned, the same in all phases."""
        # Never none of it: the kernel's text names the pointer.
        self.scratch_bytes = 1 if size == 0 else size
        return "%scratch"

    def workspace(self, size: int) -> str:
        """Scratch memory of `size` bytes of this thread's own, 64-byte aligned, for one phase."""
        self.lane_bytes = max(self.lane_bytes, -(-size // 64) * 64, 64)
        return "%workspace"

    def region(self, block: Block, registers: Sequence[str]) -> list[str]:
        """The results of a region of scalars on registers."""
        saved = dict(self._bound)
        self._bound.update(zip(block.arguments, registers, strict=True))
        with self.scope():
            for op in block.ops:
                self._region_op(op)
            results = [self._bound[v] for v in block.returns]
        self._bound = saved
        return results

    def _region_op(self, op: Op) -> None:
        if op.name == "stablehlo.constant":
            self._bound[op.result] = self.constant_element(op, [])
            return
        if getattr(op.definition, "scalar", None) is None:
            raise UnsupportedError(f"{op.name} inside a region cannot be compiled yet",
                                   op.location)
        self._bound[op.result] = self._scalar(op, [self._bound[o] for o in op.operands])

    def reduce(self, body: Block, initial: Sequence[str], extents: Sequence[Index],
               elements: Callable[[list[str]], Sequence[str]]) -> list[str]:
        """Combine `elements(index)` over all indices below `extents`, starting from `initial`."""
        total = self.accumulator(body, initial)

        def nest(index: list[str]) -> None:
            if len(index) < len(extents):
                with self.loop(0, extents[len(index)]) as i, self.scope():
                    nest([*index, i])
                return
            total.add(list(elements(index)))

        nest([])
        return total.results()

    def accumulator(self, body: Block, initial: Sequence[str]) -> Accumulator:
        """The state of a reduction by the region `body`, from the registers `initial`."""
        return accumulator(self, body, initial)

    def combine(self, body: Block, state: Sequence[str], fresh: Sequence[str]) -> list[str]:
        """One step of a reduction. Sums of narrow floats stay f32 registers, to be `rounded` once, at
        the end: 256 + 1 is 256 in bf16."""
        dtype = body.arguments[0].dtype
        opcode = _SUMS.get(combiner(body) or "") if dtype.is_float else None
        if opcode is None:
            return self.region(body, [*state, *fresh])
        # The order of a reduction is open in StableHLO; LLVM fixes it by the shape alone.
        return [self.inst(f"{opcode} reassoc {register_type(dtype)} {state[0]}, {fresh[0]}")]

    # -- whole kernels (ops with a `kernel` rule) ---------------------------------------------------

    def scatter(self, op: Op) -> None:
        from .scatter import scatter

        scatter(self, op)

    def select_and_scatter(self, op: Op) -> None:
        from .pooling import select_and_scatter

        select_and_scatter(self, op)

    def sort(self, op: Op) -> None:
        from .sort import sort

        sort(self, op)

    def first_sorted(self, op: Op) -> None:
        from .selection import first_sorted

        first_sorted(self, op)


def _alignment(dtype: DType) -> int:
    """Bytes: a complex number is aligned as its parts are."""
    return dtype.itemsize // 2 if dtype.kind == "complex" else dtype.itemsize


def is_splat(value: np.ndarray) -> bool:
    """True when all elements share one memory cell or there is at most one."""
    return value.size <= 1 or not any(value.strides)


