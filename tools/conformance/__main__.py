"""`python -m tfn.tools.conformance SUITE PATH...`."""

from __future__ import annotations

import typer

from . import bits, fuzz, hub, jax, keras, printed, random_run, stablehlo, training

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Run outside conformance suites on tfn.")


@app.callback()
def _suites() -> None:
    """One command per suite."""


app.command("stablehlo")(stablehlo.command)
app.command("jax")(jax.command)
app.command("hub")(hub.command)
app.command("keras")(keras.command)
app.command("training")(training.command)
app.command("printed")(printed.command)
app.command("random")(random_run.command)
app.command("fuzz")(fuzz.command)
app.command("bits")(bits.command)

if __name__ == "__main__":
    app()
