"""Micro-kernels that kernels share: machine code is made once for all of them.

A kernel's text is complete: it holds the micro-kernels it calls (`tile.py`). Those depend on tiles and
strides, not on the kernel. On this machine they are objects of their own, named after what they say.
"""

from __future__ import annotations

import hashlib
import re

from .native import SHARED
from .target import Target

_MICRO = re.compile(r"^define internal void @(k[0-9a-f]{24}\.(?:tile|edge)[\w.]*)(\([^\n]*\)) #1 "
                    r"(\{\n.*?^\}\n)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(rb"m[0-9a-f]{24}")


def apart(text: str, target: Target) -> tuple[str, dict[str, str]]:
    """The text of a kernel whose micro-kernels are in other objects, and their texts by name."""
    lines = SHARED.findall(text)
    found: dict[str, str] = {}
    for function in list(_MICRO.finditer(text)):
        own, parameters, body = function.groups()
        if own.partition(".")[0] in body:
            continue
        used = "".join(line for line in lines if _is_used(line, body))
        content = f"{used}define void @micro{parameters} #1 {body}"
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


def _is_used(line: str, body: str) -> bool:
    """Does a function need this line of its module?"""
    if line.startswith("attributes"):
        return line.startswith("attributes #1 ")
    mark = re.search(r"@[\w.$-]+|^![0-9]+", line)
    return mark is not None and re.search(re.escape(mark[0]) + r"(?![\w.$-])", body) is not None
