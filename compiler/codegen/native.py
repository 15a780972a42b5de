"""From LLVM text to machine code: objects for any target, functions for this process.

LLVM aborts the process on some inputs, so objects for other targets are made in a child process.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import llvmlite.binding as llvm

from ..errors import CompileError
from .target import Target

_LOCK = threading.RLock()


def compile_object(text: str, target: Target, optimise: int = 2) -> bytes:
    """The object file of LLVM `text`, compiled in this process.

    Raises `CompileError` when LLVM rejects the text (a defect of tfn).
    """
    with _LOCK:
        machine = target.machine(jit=target.is_host)
        try:
            module = llvm.parse_assembly(text)
            module.triple = target.triple
            module.data_layout = str(machine.target_data)
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"LLVM rejects generated code: {error}") from None
        options = llvm.create_pipeline_tuning_options(speed_level=optimise)
        options.loop_vectorization = True
        options.slp_vectorization = False
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        return machine.emit_object(module)


def compile_foreign(text: str, target: Target) -> bytes:
    """Like `compile_object` in a child process, for targets other than this machine."""
    root = __name__.partition(".compiler")[0]
    code = (f"import sys; from {root}.compiler.codegen.native import compile_object;"
            f" from {root}.compiler.codegen.target import Target;"
            " t = Target(*sys.argv[1:4]);"
            " sys.stdout.buffer.write(compile_object(sys.stdin.read(), t))")
    done = subprocess.run(
        [sys.executable, "-c", code, target.triple, target.cpu, target.features],
        input=text.encode(), capture_output=True, timeout=600)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise CompileError(f"LLVM cannot compile for {target}: {last[0]}")
    return done.stdout


class Loader:
    """Objects linked into this process. Code stays loaded until the process ends."""

    def __init__(self) -> None:
        self._jit = None
        self._trackers: list = []

    def load(self, name: str, image: bytes) -> int:
        """Link an object file and return the address of the function `name`."""
        with _LOCK:
            if self._jit is None:
                self._jit = llvm.create_lljit_compiler(Target.host().machine(jit=True))
            library = llvm.JITLibraryBuilder().add_object_img(image).export_symbol(name)
            tracker = library.add_current_process().link(self._jit, f"lib.{name}")
            self._trackers.append(tracker)
            return tracker[name]
