"""The `tfn` command: one file per command, and here how they are found and how they fail.

Exit codes: 0 done, 2 the user's mistake (one sentence with place and remedy), 1 a defect of tfn,
130 and 143 for SIGINT and SIGTERM.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from .console import errors

os.environ.setdefault("KERAS_BACKEND", "tfn")

# Typer has a click of its own; what it raises is known by what it exports.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="tfn", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Train, export and serve Keras models, on one compiler.\n\nStart with `tfn demo`, which"
         " does all of it on real data; `tfn doctor` says what is installed.",
    rich_markup_mode="markdown",
)


def _register() -> None:
    from . import (
        compile,
        demo,
        doctor,
        evaluate,
        export,
        inspect,
        launch,
        predict,
        serve,
        train,
    )
    from .bench import command as bench

    for module in (demo, train, evaluate, export, serve, predict, launch, compile, inspect, bench,
                   doctor):
        app.command(module.NAME)(module.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", is_eager=True, callback=_print_version,
                                 help="Print the version and stop."),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code and never raises for a failure."""
    from ..compiler.errors import CompileError, TfnError
    from .interrupt import Interrupted

    try:
        if not app.registered_commands:
            _register()
        result = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except _UsageError as mistake:
        mistake.show()
        return 2
    except (typer.Abort, KeyboardInterrupt):
        errors.print("stopped", style="yellow")
        return 130
    except Interrupted as stop:
        errors.print(str(stop), style="yellow", soft_wrap=True, highlight=False)
        return 128 + stop.signal
    except CompileError as defect:
        return _defect(defect)
    except (TfnError, FileNotFoundError, PermissionError, IsADirectoryError) as mistake:
        return _mistake(mistake)
    except Exception as defect:
        return _defect(defect)


def _mistake(error: Exception) -> int:
    _show_traceback()
    error = _core(error)
    errors.print(f"[bold red]error:[/] {_escaped(error)}", soft_wrap=True, highlight=False)
    return 2


def _defect(error: Exception) -> int:
    _show_traceback()
    errors.print(
        f"[bold red]tfn failed:[/] {type(error).__name__}: {_escaped(error)}\nThis is a defect of"
        " tfn. Please report it with what TFN_DEBUG=1 prints.", soft_wrap=True, highlight=False)
    return 1


def _core(error: Exception) -> Exception:
    """The mistake itself, where a layer of Keras has put words around it."""
    from ..compiler.errors import TfnError

    core, inner = error, error.__context__
    while isinstance(inner, TfnError) and inner.message in str(error):
        if inner.location is not None and getattr(core, "location", None) is None:
            core = inner
        inner = inner.__context__
    return core


def _escaped(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error) or type(error).__name__)


def _show_traceback() -> None:
    if os.environ.get("TFN_DEBUG"):
        traceback.print_exc()


if __name__ == "__main__":
    main()
