"""From LLVM text to machine code: objects for any target, functions for this process.

LLVM aborts the process on some inputs, so objects for other targets are made in a child process.

Functions with the attributes `#1` are *finished*: written in vectors as they should be, so that all
they need of LLVM's passes is registers for their variables and loops in order. The others go through
its pipeline, which takes longer than code generation. `#2` are those of the others that a finished
function calls.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence

import llvmlite.binding as llvm

from ..errors import CompileError
from ..locks import new_rlock
from .target import Target

_LOCK = new_rlock()


def _wait_for_llvm() -> None:
    """A fork waits for what LLVM is doing: the child would have half of it, and llvmlite's lock, which
    is held even where `_LOCK` is not, closed for ever."""
    _LOCK.acquire()
    llvm.ffi.lib._lock.__enter__()


def _go_on() -> None:
    llvm.ffi.lib._lock.__exit__(None, None, None)
    _LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_llvm, after_in_parent=_go_on, after_in_child=_go_on)


def compile_object(text: str, target: Target) -> bytes:
    """The object file of LLVM `text`, compiled in this process.

    Raises `CompileError` when LLVM rejects the text (a defect of tfn).
    """
    with _LOCK:
        machine = _machine(target)
        if _IS_MICRO.search(text):
            module = _parse(text, target, machine)
            _finish(module, machine)
            return machine.emit_object(module)
        text, finished = _divided(text)
        module = _parse(text, target, machine)
        _optimize(module, machine)
        _add_finished(module, finished, target, machine)
        return machine.emit_object(module)


@functools.cache
def _machine(target: Target):
    """The target machine of objects that are loaded: its first object takes a millisecond longer."""
    return target.machine(jit=target.is_host)


def compile_linked(texts: Sequence[str], exported: Sequence[str], target: Target) -> bytes:
    """One object of several LLVM texts that refer to each other; only `exported` stay visible.

    The code is position independent. Another target than this machine is compiled in a child
    process. Raises `CompileError` when LLVM rejects a text or cannot generate code.
    """
    if not target.is_host:
        return _in_child(texts, exported, target)
    return link_here(texts, exported, target)


def link_here(texts: Sequence[str], exported: Sequence[str], target: Target) -> bytes:
    """`compile_linked` in this process, whatever the target."""
    with _LOCK:
        machine = target.machine()
        divided = [_divided(text) for text in texts]
        module = _parse(divided[-1][0], target, machine)
        for text, _ in divided[:-1]:
            module.link_in(_parse(text, target, machine))
        _hide(module, {*exported, *(name for text in texts for name in _CALLED.findall(text))})
        _optimize(module, machine)
        for _, finished in divided:
            _add_finished(module, finished, target, machine)
        return machine.emit_object(module)


_FUNCTION = re.compile(r"^define internal (void @[^\n]*\) #([12])) \{\n.*?^\}\n",
                       re.MULTILINE | re.DOTALL)
_CALLED = re.compile(r"^define internal void @([^\s(]*)\([^\n]*\) #2 ", re.MULTILINE)
SHARED = re.compile(r"^(?:declare|attributes|@(?!llvm\.)[^ ]+ =|![0-9]+ =) .*\n", re.MULTILINE)


_IS_MICRO = re.compile(r"^define void @m[0-9a-f]{24}\([^\n]*\) #1 \{$", re.MULTILINE)


def _divided(text: str) -> tuple[str, str]:
    """A module without its finished functions, and a module of those. What either calls of the other
    is visible until they are one."""
    functions = list(_FUNCTION.finditer(text))
    own = [f for f in functions if f[2] == "1"]
    if not own:
        return text, ""
    finished = ["".join(SHARED.findall(text)),
                *(f"declare {f[1]}\n" for f in functions if f[2] == "2"),
                *(f[0].replace("internal ", "", 1) for f in own)]
    others = _FUNCTION.sub(lambda f: f"declare {f[1]}\n" if f[2] == "1" else
                           f[0].replace("internal ", "", 1), text)
    return others, "".join(finished)


def _add_finished(module, text: str, target: Target, machine) -> None:
    if not text:
        return
    finished = _parse(text, target, machine)
    visible = {f.name for f in finished.functions if not f.name.startswith("llvm.")}
    _finish(finished, machine)
    module.link_in(finished)
    for function in module.functions:
        if function.name in visible and not function.is_declaration:
            function.linkage = "internal"


def _finish(module, machine) -> None:
    """The passes that finished functions need."""
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    # Loops tested at their end: accumulators stay in registers through nested ones.
    passes.add_loop_rotate_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)


def _hide(module, exported: Collection[str]) -> None:
    for function in module.functions:
        if not function.is_declaration and function.name not in exported:
            function.linkage = "internal"


def _parse(text: str, target: Target, machine):
    try:
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM rejects generated code: {error}") from None
    return module


def _optimize(module, machine) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = True
    # Unrolling doubles compile time and gains nothing beside vectors and register tiles.
    options.loop_unrolling = False
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    # Functions of vectors have come in with vectorised loops.
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.run(module, builder)


_CHILD = """
import sys
from {package}.codegen.native import link_here
from {package}.codegen.target import Target
texts = sys.stdin.buffer.read().decode().split(chr(0))
image = link_here(texts, sys.argv[4].split(","), Target(*sys.argv[1:4]))
sys.stdout.buffer.write(image)
"""


def _in_child(texts: Sequence[str], exported: Sequence[str], target: Target) -> bytes:
    package = __name__.rpartition(".codegen")[0]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(package=package), target.triple, target.cpu,
         target.features, ",".join(exported)],
        input="\0".join(texts).encode(), capture_output=True, timeout=600)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise CompileError(f"LLVM cannot compile for {target}: {last[0]}")
    return done.stdout


class Loader:
    """Objects linked into this process. Code stays loaded until the process ends."""

    def __init__(self) -> None:
        self._jit = None
        self._trackers: list = []
        self._count = 0

    def load(self, name: str, image: bytes) -> int:
        """Link an object file and return the address of the function `name`."""
        return self.load_all([name], image)[0]

    def load_all(self, names: Sequence[str], *images: bytes,
                 imported: Mapping[str, int] | None = None) -> list[int]:
        """Link object files together and return the addresses of functions in them. `imported` are
        the addresses of functions of other objects that they call."""
        with _LOCK:
            if self._jit is None:
                self._jit = llvm.create_lljit_compiler(Target.host().machine(jit=True))
            library = llvm.JITLibraryBuilder()
            for image in images:
                library.add_object_img(image)
            for name in names:
                library.export_symbol(name)
            for name, address in (imported or {}).items():
                library.import_symbol(name, address)
            # A failed link keeps its library name taken, so that names are never used twice.
            self._count += 1
            tracker = library.add_current_process().link(self._jit, f"lib{self._count}.{names[0]}")
            self._trackers.append(tracker)
            return [tracker[name] for name in names]
