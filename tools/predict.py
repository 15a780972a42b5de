"""`tfn predict`: run a bundle on inputs from a file."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Any

import numpy as np
import typer

from ..compiler.errors import TfnError
from .console import console, print_json

NAME = "predict"


def command(
    bundle: Path = typer.Argument(..., help="A bundle: NAME or NAME/VERSION."),
    inputs: Path = typer.Argument(..., help=".npy (one input), .npz (inputs by name) or .json."),
    signature: str = typer.Option("serving_default", help="Which signature to run."),
    out: Path = typer.Option(None, help="Write the outputs to this .npz file."),
    json: bool = typer.Option(False, "--json", help="Print the outputs as JSON."),
) -> None:
    """Run a bundle on a batch of inputs.

        tfn predict exported/digits images.npy --json
    """
    from ..export import Runner, read_bundle

    loaded = read_bundle(bundle)
    chosen = loaded.signature(signature)
    arrays = _read(inputs, [s.name for s in chosen.inputs])
    typed = {s.name: np.asarray(arrays[s.name]).astype(s.dtype.numpy)
             for s in chosen.inputs if s.name in arrays}
    results = Runner(loaded, signature).run(typed)
    if out is not None:
        np.savez(out, **results)  # type: ignore[arg-type]
    if json:
        print_json({name: value.tolist() for name, value in results.items()})
    elif out is None:
        for name, value in results.items():
            console.print(f"{name}: {value.dtype}{list(value.shape)}")
            console.print(np.array2string(value, precision=4, threshold=60))


def _read(file: Path, names: list[str]) -> dict[str, Any]:
    if not file.exists():
        raise TfnError(f"there is no file {file}")
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as data:
                return {name: data[name] for name in data.files}
        value = (json_module.loads(file.read_text()) if file.suffix == ".json"
                 else np.load(file, allow_pickle=False))
    except (ValueError, OSError) as error:
        raise TfnError(f"{file} cannot be read: {error}; give .npy, .npz or .json") from None
    if isinstance(value, dict):
        return value
    if len(names) != 1:
        raise TfnError(f"the signature takes {', '.join(names)}: give a .npz or a JSON object with"
                       f" those names, {file} holds one array")
    return {names[0]: value}
