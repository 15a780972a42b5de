"""The thread pool: workers that share the tasks of a kernel, written in LLVM IR.

A job is a kernel and a number of chunks. One 64-bit ticket holds the number of the job and the chunks
nobody has taken yet; taking one is a compare-and-swap, so a thread that comes late finds nothing to
take and can spoil nothing, and the caller waits only for chunks that have been begun. Workers look at
the ticket for a while, then sleep on a futex. A second caller at the same time runs its job alone.

Which thread takes which chunk is open; kernels write the same bits whoever does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import numpy as np

from ..codegen.native import Loader
from ..codegen.target import Target
from ..errors import UnsupportedError
from ..locks import once
from .disk import cached_object

MAX_THREADS = 256

# Bytes from the beginning of the shared memory, each on a cache line of its own.
_TICKET, _DONE, _BUSY, _SLEEPERS, _JOB = 0, 64, 128, 192, 256
_BYTES = 384

_SPINS = 20_000
"""Looks at the ticket before a worker sleeps, about 0.2 ms: a sleeper takes 5 to 40 us to wake."""

_FUTEX = {"x86_64": 202, "aarch64": 98}
"""Number of the system call by the first part of the target's triple."""

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}

_TEXT = """
declare i64 @syscall(i64, ...)
declare i32 @sched_yield()
{declare_pause}

; Take a chunk and run it: 1, or 0 when none is left.
define internal i32 @chunk(ptr %pool, i64 %lane) {{
entry:
  %job = getelementptr i8, ptr %pool, i64 {job}
  br label %look
look:
  %ticket = load atomic i64, ptr %pool acquire, align 8
  %left = and i64 %ticket, 4294967295
  %none = icmp eq i64 %left, 0
  br i1 %none, label %nothing, label %take
take:
  %fn = load ptr, ptr %job
  %q1 = getelementptr i64, ptr %job, i64 1
  %buffers = load ptr, ptr %q1
  %q2 = getelementptr i64, ptr %job, i64 2
  %extents = load ptr, ptr %q2
  %q3 = getelementptr i64, ptr %job, i64 3
  %scalars = load ptr, ptr %q3
  %q4 = getelementptr i64, ptr %job, i64 4
  %tasks = load i64, ptr %q4
  %q5 = getelementptr i64, ptr %job, i64 5
  %size = load i64, ptr %q5
  %q6 = getelementptr i64, ptr %job, i64 6
  %chunks = load i64, ptr %q6
  %q7 = getelementptr i64, ptr %job, i64 7
  %phase = load i64, ptr %q7
  %less = sub i64 %ticket, 1
  %swap = cmpxchg ptr %pool, i64 %ticket, i64 %less acq_rel acquire
  %taken = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %taken, label %run, label %look
run:
  %number = sub i64 %chunks, %left
  %first = mul i64 %number, %size
  %end = add i64 %first, %size
  %over = icmp sgt i64 %end, %tasks
  %last = select i1 %over, i64 %tasks, i64 %end
  call void %fn(ptr %buffers, ptr %extents, ptr %scalars, i64 %first, i64 %last, i64 %lane,
                i64 %phase)
  ret i32 1
nothing:
  ret i32 0
}}

define ptr @tfn_worker(ptr %arguments) {{
entry:
  %pool = load ptr, ptr %arguments
  %lanep = getelementptr i64, ptr %arguments, i64 1
  %lane = load i64, ptr %lanep
  %done = getelementptr i8, ptr %pool, i64 {done}
  %sleepers = getelementptr i8, ptr %pool, i64 {sleepers}
  %word = getelementptr i8, ptr %pool, i64 4
  br label %work
work:
  %did = call i32 @chunk(ptr %pool, i64 %lane)
  %some = icmp eq i32 %did, 1
  br i1 %some, label %count, label %wait
count:
  %before = atomicrmw add ptr %done, i64 1 release
  br label %work
wait:
  %spin = phi i64 [0, %work], [%spin1, %again]
  %ticket = load atomic i64, ptr %pool acquire, align 8
  %left = and i64 %ticket, 4294967295
  %none = icmp eq i64 %left, 0
  br i1 %none, label %patience, label %work
patience:
  %more = icmp ult i64 %spin, {spins}
  br i1 %more, label %again, label %sleep
again:
  {pause}
  %spin1 = add i64 %spin, 1
  br label %wait
sleep:
  %high = lshr i64 %ticket, 32
  %number = trunc i64 %high to i32
  %up = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %slept = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 128, i32 %number, ptr null,
                                        ptr null, i32 0)
  %down = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %work
}}

define void @tfn_parallel(ptr %pool, ptr %fn, ptr %buffers, ptr %extents, ptr %scalars, i64 %tasks,
                          i64 %size, i64 %phase) {{
entry:
  %busy = getelementptr i8, ptr %pool, i64 {busy}
  %lock = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %lock, 1
  br i1 %free, label %publish, label %alone
alone:
  call void %fn(ptr %buffers, ptr %extents, ptr %scalars, i64 0, i64 %tasks, i64 0, i64 %phase)
  ret void
publish:
  %done = getelementptr i8, ptr %pool, i64 {done}
  %sleepers = getelementptr i8, ptr %pool, i64 {sleepers}
  %word = getelementptr i8, ptr %pool, i64 4
  %job = getelementptr i8, ptr %pool, i64 {job}
  %up = add i64 %tasks, %size
  %up1 = sub i64 %up, 1
  %chunks = udiv i64 %up1, %size
  store ptr %fn, ptr %job
  %q1 = getelementptr i64, ptr %job, i64 1
  store ptr %buffers, ptr %q1
  %q2 = getelementptr i64, ptr %job, i64 2
  store ptr %extents, ptr %q2
  %q3 = getelementptr i64, ptr %job, i64 3
  store ptr %scalars, ptr %q3
  %q4 = getelementptr i64, ptr %job, i64 4
  store i64 %tasks, ptr %q4
  %q5 = getelementptr i64, ptr %job, i64 5
  store i64 %size, ptr %q5
  %q6 = getelementptr i64, ptr %job, i64 6
  store i64 %chunks, ptr %q6
  %q7 = getelementptr i64, ptr %job, i64 7
  store i64 %phase, ptr %q7
  store atomic i64 0, ptr %done monotonic, align 8
  %old = load atomic i64, ptr %pool monotonic, align 8
  %next = add i64 %old, 4294967296
  %ticket = or i64 %next, %chunks
  store atomic i64 %ticket, ptr %pool seq_cst, align 8
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  br i1 %any, label %wake, label %own
wake:
  %others = sub i64 %chunks, 1
  %many = icmp ugt i64 %others, {max_threads}
  %count = select i1 %many, i64 {max_threads}, i64 %others
  %count32 = trunc i64 %count to i32
  %woken = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 129, i32 %count32, ptr null,
                                        ptr null, i32 0)
  br label %own
own:
  %mine = phi i64 [0, %publish], [0, %wake], [%mine1, %own]
  %did = call i32 @chunk(ptr %pool, i64 0)
  %did64 = zext i32 %did to i64
  %mine1 = add i64 %mine, %did64
  %some = icmp eq i32 %did, 1
  br i1 %some, label %own, label %join
join:
  %spin = phi i64 [0, %own], [%spin1, %pause], [%spin1, %yield]
  %theirs = load atomic i64, ptr %done acquire, align 8
  %all = add i64 %theirs, %mine
  %finished = icmp eq i64 %all, %chunks
  br i1 %finished, label %out, label %patience
patience:
  %spin1 = add i64 %spin, 1
  %short = icmp ult i64 %spin, 2000
  br i1 %short, label %pause, label %yield
pause:
  {pause}
  br label %join
yield:
  %yielded = call i32 @sched_yield()
  br label %join
out:
  store atomic i32 0, ptr %busy release, align 4
  ret void
}}
"""


def thread_count() -> int:
    """Threads that run a kernel: `TFN_NUM_THREADS`, else the processors this process may use.

    Raises `UnsupportedError` when the variable is not a whole number from 1 to 256.
    """
    text = os.environ.get("TFN_NUM_THREADS")
    if text is None:
        return min(_processors(), MAX_THREADS)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_THREADS):
        raise UnsupportedError(f"TFN_NUM_THREADS is {text!r}; set it to a whole number from 1 to"
                               f" {MAX_THREADS}, or unset it to use every processor")
    return int(text)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Pool:
    """`threads` threads, the caller among them. `address` is that of the shared memory, 0 when there
    is nothing to share (one thread, or a system without futexes)."""

    def __init__(self, threads: int):
        machine = Target.host().triple.partition("-")[0]
        if not sys.platform.startswith("linux") or machine not in _FUTEX:
            threads = 1
        self.threads = threads
        self.address = self.entry = 0
        if threads == 1:
            return
        self._worker, self.entry = _functions(machine)
        self._memory = np.zeros(_BYTES + 64, np.uint8)
        self.address = self._memory.ctypes.data + -self._memory.ctypes.data % 64
        self._arguments = np.zeros((threads, 2), np.int64)
        self._arguments[:, 0] = self.address
        self._arguments[:, 1] = range(threads)
        # First, for it keeps the memory the workers look at, also when an interrupt ends this.
        os.register_at_fork(after_in_child=self._start)
        self._start()

    def _start(self) -> None:
        """Begin with fresh memory and new workers; a forked child has none."""
        self._memory[:] = 0
        create = ctypes.CDLL(None).pthread_create
        create.argtypes = [ctypes.c_void_p] * 4
        # Signals are for Python's threads: a worker must not be the one that takes them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            for lane in range(1, self.threads):
                handle = ctypes.c_void_p()
                failed = create(ctypes.byref(handle), None, self._worker,
                                self._arguments[lane].ctypes.data)
                if failed:
                    # Fewer workers do the same work.
                    break
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


_LOADER = Loader()


@once
def _functions(machine: str) -> tuple[int, int]:
    """Addresses of the worker and of `tfn_parallel`."""
    declare_pause, pause = _PAUSE[machine]
    text = _TEXT.format(
        declare_pause=declare_pause, pause=pause, futex=_FUTEX[machine], spins=_SPINS,
        max_threads=MAX_THREADS, job=_JOB, done=_DONE, sleepers=_SLEEPERS, busy=_BUSY)
    worker, parallel = _LOADER.load_all(["tfn_worker", "tfn_parallel"],
                                        cached_object(text))
    return worker, parallel


@once
def pool() -> Pool:
    """The pool of this process, made at first use."""
    return Pool(thread_count())
