"""One rank of a launched job: check the world, run the script, and fail together.

A rank that raises would leave the others waiting in a collective; it aborts the job instead.
"""

from __future__ import annotations

import runpy
import sys
import traceback

from ..compiler.errors import TfnError
from .world import communicator


def main(arguments: list[str]) -> None:
    """Run `arguments[0]` as a script with the rest as its arguments."""
    try:
        world = communicator()
    except TfnError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as stop:
        if stop.code and world is not None and world.size > 1:
            world.abort(stop.code if isinstance(stop.code, int) else 1)
        raise
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        if world is not None and world.size > 1:
            world.abort(1)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
