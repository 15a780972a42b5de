"""Targets: a row per instruction set, and what the code generator may assume about it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import llvmlite.binding as llvm

from . import amx

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()


@dataclass(frozen=True)
class Tile:
    """The register tile of a contraction: `rows` by `vectors` accumulators of `bits` each."""

    rows: int
    vectors: int
    bits: int


TILES: tuple[tuple[str, Tile], ...] = (
    ("+avx512f", Tile(6, 4, 512)),   # 24 accumulators of 32 registers
    ("+avx2", Tile(3, 4, 256)),      # 12 of 16
    ("+neon", Tile(4, 4, 128)),
    ("+simd128", Tile(2, 4, 128)),
    ("", Tile(2, 2, 128)),
)
"""The first row whose feature the target has."""


LINE = 64
"""Bytes of a cache line."""

BYTES_APART: tuple[tuple[str, int], ...] = (("rapids", 128 << 10), ("", 1 << 20))
"""Part of a CPU's name, and the bytes of a matrix of which short pieces of rows, far apart in the
second-level cache, are read as fast as packed ones. Intel's Sapphire Rapids and later take a tenth
longer for 256 KB; Zen 4 and 5 do not. The first row that fits."""

BYTES_NEAR: tuple[tuple[str, int], ...] = (("rapids", 1280 << 10), ("", 64 << 20))
"""Part of a CPU's name, and the bytes of a matrix that stay near while others pass by: in the
second-level cache of Sapphire Rapids and later, whose third is slow, and elsewhere in the third."""

WAYS: tuple[tuple[str, int], ...] = (("rapids", 12), ("", 8))
"""Part of a CPU's name, and the lines of a set of its first-level cache."""

DEPTH: tuple[tuple[str, int], ...] = (("rapids", 128), ("", 448))
"""Part of a CPU's name, and about how many words along K the vectors of a product take at a time: 64
columns of b then are 32 KB, which stay in a first-level cache of 48 KB, or more and come from the
second level, which is fast enough on Zen 4 and 5. The first row that fits."""

BYTES_ALONE: tuple[tuple[str, int], ...] = (("rapids", 1 << 20), ("", 0))
"""Part of a CPU's name, and the bytes of rows that are multiplied by panels that each task packs for
itself: half a second-level cache. The first row that fits."""

BYTES_STREAMED: tuple[tuple[str, int], ...] = (("rapids", 16 << 20), ("", 0))
"""Part of a CPU's name, and up to how many bytes of a matrix three to six rows are multiplied faster by
tiles than by lines of it as they come: up to twice as fast. The first row that fits."""

BYTES_UNCACHED: tuple[tuple[str, int], ...] = (("rapids", 8 << 20), ("", 64 << 20))
"""Part of a CPU's name, and the bytes of a result that is stored around the cache. The third level of
Sapphire Rapids and later is hardly faster than memory: a sum of 16 MB takes a quarter less, and a fifth
less together with who reads it next. For the others what no last-level cache holds."""

BYTES_FILLED: tuple[tuple[str, int], ...] = (("rapids", 32 << 20), ("", 8 << 20))
"""Part of a CPU's name, and the bytes of a result from which what it is filled with before more is
added goes around the cache. Where the third level is as large as that of Sapphire Rapids and later,
sums of rows into 15 MB take two thirds of the time inside it, and into 60 MB half as long again."""

FETCHES_RESULTS = ("rapids",)
"""Parts of the names of CPUs that gain when rows of results are asked for before they are stored:
softmax and the gradient of layer normalisation a sixth, in large arrays."""


@dataclass(frozen=True)
class Target:
    """Where code will run: an LLVM triple, a CPU name and a feature string."""

    triple: str
    cpu: str
    features: str

    @staticmethod
    @functools.cache
    def host() -> Target:
        """The machine this process runs on."""
        features = llvm.get_host_cpu_features().flatten()
        if "+amx-tile" in features and not amx.allowed():
            features = features.replace("+amx-", "-amx-")
        return Target(llvm.get_process_triple(), llvm.get_host_cpu_name(), features)

    @staticmethod
    def named(name: str) -> Target:
        """A target by short name (`x86-64-v3`, `aarch64`, `host` ...) or by LLVM triple."""
        if name == "host":
            # Code for other processes: those would have to ask for tile registers first.
            host = Target.host()
            return Target(host.triple, host.cpu, host.features.replace("+amx-", "-amx-"))
        if name in NAMED:
            return NAMED[name]
        try:
            llvm.Target.from_triple(name)
        except RuntimeError as error:
            from ..errors import UnsupportedError

            known = ", ".join(sorted(NAMED))
            raise UnsupportedError(
                f"no target `{name}` ({error}); use an LLVM triple or one of host, {known}"
            ) from None
        return Target(name, "", "")

    @property
    def is_host(self) -> bool:
        return self == Target.host()

    @property
    def tile(self) -> Tile:
        names = self.features.split(",")
        if self.triple.startswith(("aarch64", "arm64")):
            names.append("+neon")
        return next(tile for feature, tile in TILES if not feature or feature in names)

    def _row(self, table: tuple[tuple[str, int], ...]) -> int:
        """The first row of a table whose part of a name this CPU's has."""
        return next(number for part, number in table if part in self.cpu)

    @property
    def bytes_apart(self) -> int:
        """See `BYTES_APART`."""
        return self._row(BYTES_APART)

    @property
    def ways(self) -> int:
        """See `WAYS`."""
        return self._row(WAYS)

    @property
    def bytes_near(self) -> int:
        """See `BYTES_NEAR`."""
        return self._row(BYTES_NEAR)

    @property
    def depth(self) -> int:
        """See `DEPTH`."""
        return self._row(DEPTH)

    @property
    def bytes_alone(self) -> int:
        """See `BYTES_ALONE`."""
        return self._row(BYTES_ALONE)

    @property
    def bytes_streamed(self) -> int:
        """See `BYTES_STREAMED`."""
        return self._row(BYTES_STREAMED)

    @property
    def bytes_uncached(self) -> int:
        """See `BYTES_UNCACHED`."""
        return self._row(BYTES_UNCACHED)

    @property
    def bytes_filled(self) -> int:
        """See `BYTES_FILLED`."""
        return self._row(BYTES_FILLED)

    @property
    def fetches_results(self) -> bool:
        """See `FETCHES_RESULTS`."""
        return any(part in self.cpu for part in FETCHES_RESULTS)

    @property
    def has_fma(self) -> bool:
        """Is a fused multiply-add an instruction?"""
        return "+fma" in self.features.split(",") or self.triple.startswith(("aarch64", "arm64"))

    def machine(self, jit: bool = False):
        """An LLVM target machine at codegen level 2."""
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=2, jit=jit,
            reloc="default" if jit else "pic", codemodel="jitdefault" if jit else "default")

    def __str__(self) -> str:
        return f"{self.triple} {self.cpu}".strip()


_X86 = "x86_64-unknown-linux-gnu"
NAMED = {
    "x86-64": Target(_X86, "x86-64", ""),
    "x86-64-v2": Target(_X86, "x86-64-v2", ""),
    "x86-64-v3": Target(_X86, "x86-64-v3", "+avx2,+fma"),
    "x86-64-v4": Target(_X86, "x86-64-v4", "+avx2,+fma,+avx512f"),
    "aarch64": Target("aarch64-unknown-linux-gnu", "generic", "+neon"),
}
