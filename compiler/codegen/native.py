"""From LLVM text to machine code: objects for any target, functions for this process.

LLVM aborts the process on some inputs, so objects for other targets are made in a child process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import llvmlite.binding as llvm

from ..errors import CompileError
from ..locks import new_rlock
from .target import Target

_LOCK = new_rlock()


def compile_object(text: str, target: Target) -> bytes:
    """The object file of LLVM `text`, compiled in this process.

    Raises `CompileError` when LLVM rejects the text (a defect of tfn).
    """
    with _LOCK:
        machine = target.machine(jit=target.is_host)
        return _emit(_parse(text, target, machine), machine)


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
        module = _parse(texts[-1], target, machine)
        for text in texts[:-1]:
            module.link_in(_parse(text, target, machine))
        for function in module.functions:
            if not function.is_declaration and function.name not in exported:
                function.linkage = "internal"
        return _emit(module, machine)


def _parse(text: str, target: Target, machine):
    try:
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM rejects generated code: {error}") from None
    return module


def _emit(module, machine) -> bytes:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = True
    # Unrolling doubles compile time and gains nothing beside vectors and register tiles.
    options.loop_unrolling = False
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


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

    def load_all(self, names: Sequence[str], *images: bytes) -> list[int]:
        """Link object files together and return the addresses of functions in them."""
        with _LOCK:
            if self._jit is None:
                self._jit = llvm.create_lljit_compiler(Target.host().machine(jit=True))
            library = llvm.JITLibraryBuilder()
            for image in images:
                library.add_object_img(image)
            for name in names:
                library.export_symbol(name)
            # A failed link keeps its library name taken, so that names are never used twice.
            self._count += 1
            tracker = library.add_current_process().link(self._jit, f"lib{self._count}.{names[0]}")
            self._trackers.append(tracker)
            return [tracker[name] for name in names]
