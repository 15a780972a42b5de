"""What this machine can do at most, measured with loops that do nothing else.

Arithmetic: independent chains of fused multiply-adds in registers. Memory: reading and copying
blocks that fit each level. Every figure is the best of several tries, since only disturbance makes a
loop slower than the machine. `tfn bench` and profiles give times as fractions of these.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..codegen.native import Loader, compile_object
from ..codegen.target import Target
from ..locks import once

# An FMA takes 4 to 5 cycles and two start per cycle: 8 to 10 chains keep both units busy, 12 leave
# room, and 16 registers hold them.
CHAINS = 12
READ_UNROLL, COPY_UNROLL = 8, 4
TRIES = 7
SECONDS = 0.02
KB = 1024
READ_BYTES = {"l1": 16 * KB, "l2": 192 * KB, "l3": 6 * 1024 * KB, "memory": 128 * 1024 * KB}
COPY_BYTES = {"l1": 16 * KB, "l2": 256 * KB, "l3": 8 * 1024 * KB, "memory": 256 * 1024 * KB}
"""Working sets, one per level; a copy's is source and destination together."""


@dataclass
class Peaks:
    """Measured limits for a number of threads, per second."""

    threads: int
    vector_bits: int
    f32_flops: float
    read_bytes: dict[str, float] = field(default_factory=dict)
    copy_bytes: dict[str, float] = field(default_factory=dict)

    def bandwidth(self, nbytes: float) -> float:
        """Bandwidth for a working set: that of the smallest level it fits, reading or copying."""
        level = next((name for name, size in COPY_BYTES.items() if nbytes <= 2 * size), "memory")
        return max(self.copy_bytes[level], self.read_bytes[level])

    def better(self, other: Peaks) -> Peaks:
        """The higher of each figure of two measurements."""
        return Peaks(self.threads, self.vector_bits, max(self.f32_flops, other.f32_flops),
                     {k: max(v, other.read_bytes[k]) for k, v in self.read_bytes.items()},
                     {k: max(v, other.copy_bytes[k]) for k, v in self.copy_bytes.items()})

    def least_seconds(self, flops: float, nbytes: float) -> float:
        """The time no f32 program can beat: arithmetic and traffic at full speed, overlapped."""
        return max(flops / self.f32_flops, nbytes / self.bandwidth(nbytes))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(threads: int) -> Peaks:
    """Measure all of them; takes about two seconds. With one thread in that thread's CPU time."""
    bits = Target.host().tile.bits
    return Peaks(threads, bits, _flops(bits // 32, threads),
                 {level: _reading(size, threads) for level, size in READ_BYTES.items()},
                 {level: _copying(size, threads) for level, size in COPY_BYTES.items()})


def _flops(lanes: int, threads: int) -> float:
    function = _function("tfn_peak_fma", lanes, (ctypes.c_int64, ctypes.c_void_p))
    out = [_aligned(CHAINS * lanes) for _ in range(threads)]
    rounds = 100_000

    def body(i: int) -> None:
        function(rounds, out[i].ctypes.data)

    return threads * rounds * CHAINS * lanes * 2 / _best(threads, body)


def _reading(size: int, threads: int) -> float:
    lanes = Target.host().tile.bits // 32
    function = _function("tfn_peak_read", lanes, (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                                  ctypes.c_void_p))
    blocks = [_aligned(size // 4) for _ in range(threads)]
    out = [_aligned(READ_UNROLL * lanes) for _ in range(threads)]
    repeat = max(1, (64 << 20) // size)

    def body(i: int) -> None:
        function(blocks[i].ctypes.data, size // 4, repeat, out[i].ctypes.data)

    return threads * size * repeat / _best(threads, body)


def _copying(size: int, threads: int) -> float:
    """Bytes read plus bytes written."""
    lanes = Target.host().tile.bits // 32
    function = _function("tfn_peak_copy", lanes, (ctypes.c_void_p, ctypes.c_void_p,
                                                  ctypes.c_int64, ctypes.c_int64))
    half = size // 8
    blocks = [(_aligned(half), _aligned(half)) for _ in range(threads)]
    repeat = max(1, (64 << 20) // size)

    def body(i: int) -> None:
        source, destination = blocks[i]
        function(source.ctypes.data, destination.ctypes.data, half, repeat)

    return threads * size * repeat / _best(threads, body)


def _aligned(count: int) -> np.ndarray:
    raw = np.ones(count + 16, np.float32)
    start = (-raw.ctypes.data % 64) // 4
    return raw[start:start + count]


def _best(threads: int, body: Callable[[int], None]) -> float:
    """Least seconds for `body` on all threads at once."""
    # One thread's own time does not count what others do on its core.
    clock = time.thread_time if threads == 1 else time.perf_counter
    best, ends = float("inf"), time.perf_counter() + TRIES * SECONDS
    tries = 0
    while tries < TRIES or time.perf_counter() < ends:
        others = [threading.Thread(target=body, args=(i,)) for i in range(1, threads)]
        start = clock()
        for thread in others:
            thread.start()
        body(0)
        for thread in others:
            thread.join()
        best = min(best, clock() - start)
        tries += 1
    return best


# -- loops -----------------------------------------------------------------------------------------

_LOADER = Loader()


@once
def _function(name: str, lanes: int, arguments: tuple) -> Callable[..., None]:
    """The loop `name`; calling it releases the GIL."""
    address = _LOADER.load(name, compile_object(_TEXTS[name](lanes), Target.host()))
    return ctypes.CFUNCTYPE(None, *arguments)(address)


def _fma_text(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    chains = range(CHAINS)
    phis = "\n".join(f"  %a{j} = phi {vector} [zeroinitializer, %entry], [%b{j}, %loop]"
                     for j in chains)
    steps = "\n".join(f"  %b{j} = call {vector} @llvm.fma.v{lanes}f32({vector} %x, {vector} %y,"
                      f" {vector} %a{j})" for j in chains)
    stores = "\n".join(f"  %p{j} = getelementptr {vector}, ptr %out, i64 {j}\n"
                       f"  store {vector} %b{j}, ptr %p{j}, align 4" for j in chains)
    return f"""
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define void @tfn_peak_fma(i64 %n, ptr %out) {{
entry:
  %x = load volatile {vector}, ptr %out, align 4
  %y = load volatile {vector}, ptr %out, align 4
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
{steps}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
{stores}
  ret void
}}
"""


def _read_text(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    parts = range(READ_UNROLL)
    # Signs of the sums carry from one pass to the next, so that no pass can be left out.
    phis = "\n".join(f"  %s{j} = phi {vector} [%c{j}, %pass], [%t{j}, %loop]" for j in parts)
    carried = "\n".join(f"  %c{j} = phi {vector} [zeroinitializer, %entry], [%t{j}, %end]"
                        for j in parts)
    loads = "\n".join(f"""  %i{j} = add i64 %i, {j * lanes}
  %p{j} = getelementptr float, ptr %from, i64 %i{j}
  %v{j} = load {vector}, ptr %p{j}, align 4
  %t{j} = fadd {vector} %s{j}, %v{j}""" for j in parts)
    stores = "\n".join(f"  %q{j} = getelementptr {vector}, ptr %out, i64 {j}\n"
                       f"  store {vector} %t{j}, ptr %q{j}, align 4" for j in parts)
    return f"""
define void @tfn_peak_read(ptr %from, i64 %n, i64 %repeat, ptr %out) {{
entry:
  br label %pass
pass:
  %round = phi i64 [0, %entry], [%again, %end]
{carried}
  br label %loop
loop:
  %i = phi i64 [0, %pass], [%next, %loop]
{phis}
{loads}
  %next = add i64 %i, {READ_UNROLL * lanes}
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  %again = add i64 %round, 1
  %another = icmp slt i64 %again, %repeat
  br i1 %another, label %pass, label %done
done:
{stores}
  ret void
}}
"""


def _copy_text(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    # Volatile: the pass pipeline would make this a memcpy, or drop all rounds but one.
    moves = "\n".join(f"""  %i{j} = add i64 %i, {j * lanes}
  %p{j} = getelementptr float, ptr %from, i64 %i{j}
  %v{j} = load volatile {vector}, ptr %p{j}, align 4
  %q{j} = getelementptr float, ptr %to, i64 %i{j}
  store volatile {vector} %v{j}, ptr %q{j}, align 4""" for j in range(COPY_UNROLL))
    return f"""
define void @tfn_peak_copy(ptr %from, ptr %to, i64 %n, i64 %repeat) {{
entry:
  br label %pass
pass:
  %round = phi i64 [0, %entry], [%again, %end]
  br label %loop
loop:
  %i = phi i64 [0, %pass], [%next, %loop]
{moves}
  %next = add i64 %i, {COPY_UNROLL * lanes}
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  %again = add i64 %round, 1
  %another = icmp slt i64 %again, %repeat
  br i1 %another, label %pass, label %done
done:
  ret void
}}
"""


_TEXTS: dict[str, Callable[[int], str]] = {
    "tfn_peak_fma": _fma_text, "tfn_peak_read": _read_text, "tfn_peak_copy": _copy_text}
