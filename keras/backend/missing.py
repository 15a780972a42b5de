"""What the backend does not have yet: callable names that say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from ...compiler.errors import user_location


class MissingOp(NotImplementedError, AttributeError):
    """Both kinds of error, because Keras probes for ops in both ways."""


def missing(name: str) -> Callable[..., Any]:
    """A stand-in for the op `name` that raises `MissingOp` at the user's line when called."""

    def stand_in(*args: Any, **kwargs: Any) -> NoReturn:
        raise MissingOp(f"{user_location()}: the Keras op `{name}` is not supported by the tfn"
                        " backend yet; run this part with another Keras backend")

    stand_in.__name__ = name
    return stand_in
