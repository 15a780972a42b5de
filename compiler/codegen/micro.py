"""Micro-kernels and other functions that kernels share: machine code is made once for all of them.

A kernel's text is complete: it holds the micro-kernels (`tile.py`) and the functions (`shared.py`) it
calls. Those depend on tiles and strides, not on the kernel. On this machine they are objects of their
own, named after what they say.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from .native import SHARED
from .target import Target

_MICRO = re.compile(r"^define internal void @(k[0-9a-f]{24}\.(?:tile|edge|shared)[\w.]*)(\([^\n]*\)) "
                    r"(#[12]) (\{\n.*?^\}\n)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(rb"m[0-9a-f]{24}")
_NOTE = re.compile(r"(?<=[ {,])![0-9]+(?![0-9])", re.MULTILINE)


def apart(text: str, target: Target) -> tuple[str, dict[str, str]]:
    """The text of a kernel whose micro-kernels are in other objects, and their texts by name."""
    lines = SHARED.findall(text)
    found: dict[str, str] = {}
    for function in list(_MICRO.finditer(text)):
        own, parameters, attributes, body = function.groups()
        if own.partition(".")[0] in body or "@tfn." in body:
            continue
        notes, body = _notes(lines, body)
        used = "".join(line for line in lines if _is_used(line, attributes, body))
        content = f"{used}{notes}define void @micro{parameters} {attributes} {body}"
        digest = hashlib.sha256("\0".join(
            [target.triple, target.cpu, target.features, content]).encode())
        name = f"m{digest.hexdigest()[:24]}"
        declared = "" if name in found else f"declare void @{name}{parameters}\n"
        found[name] = content.replace("@micro(", f"@{name}(")
        text = text.replace(function[0], declared).replace(f"@{own}(", f"@{name}(")
    return text, found


def called(image: bytes) -> set[str]:
    """The micro-kernels that an object calls."""
    return {name.decode() for name in _NAME.findall(image)}


def _notes(lines: Sequence[str], body: str) -> tuple[str, str]:
    """The metadata that a function refers to, and its body, numbered as if there were no other."""
    meaning = dict(line.split(" = ", 1) for line in lines if line.startswith("!"))
    numbers: dict[str, str] = {}

    def renumbered(text: str) -> str:
        return _NOTE.sub(lambda note: numbers.setdefault(note[0], f"!{len(numbers)}"), text)

    body = renumbered(body)
    notes: list[str] = []
    while len(notes) < len(numbers):
        note = list(numbers)[len(notes)]
        notes.append(f"!{len(notes)} = {renumbered(meaning[note])}")
    return "".join(notes), body


def _is_used(line: str, attributes: str, body: str) -> bool:
    """Does a function need this line of its module?"""
    if line.startswith("attributes"):
        return line.startswith(f"attributes {attributes} ")
    mark = re.search(r"@[\w.$-]+", line)
    return mark is not None and re.search(re.escape(mark[0]) + r"(?![\w.$-])", body) is not None
