"""`tfn serve`: bundles over HTTP, in TensorFlow Serving's REST format."""

from __future__ import annotations

from pathlib import Path

import typer

from ..compiler.errors import TfnError

NAME = "serve"


def command(
    bundles: list[Path] = typer.Argument(..., help="Folders NAME with one bundle per version, or"
                                         " run folders of `tfn train`."),
    name: str = typer.Option(None, help="Serve the (only) model under another name."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(8501, min=0, max=65535, help="Port; 0 takes a free one."),
    max_body_mb: float = typer.Option(64.0, min=0.001, help="Largest request body, in MiB."),
    grace_seconds: float = typer.Option(30.0, min=0, help="How long requests in flight may take"
                                        " after SIGTERM."),
) -> None:
    """Serve models until SIGTERM; requests in flight are finished first.

        tfn serve exported/digits --port 8501
        curl -d '{"instances": [...]}' http://127.0.0.1:8501/v1/models/digits:predict
    """
    from ..serving import serve

    if name is not None and len(bundles) != 1:
        raise TfnError(f"--name names one model, but {len(bundles)} are served")
    models: dict[str, Path] = {}
    for folder in map(_base, bundles):
        if folder.name in models:
            raise TfnError(f"two models are named {folder.name}: {models[folder.name]} and {folder};"
                           " serve them from folders with different names")
        models[name or folder.name] = folder
    serve(models, host, port, int(max_body_mb * 1024 * 1024), grace_seconds)


def _base(path: Path) -> Path:
    """The folder of versions for what the user named: it, one version in it, or a run folder."""
    from .export import is_bundle
    from .run_folder import RUN, open_model

    if (path / "bundle.json").exists():
        return path.parent
    if is_bundle(path):
        return path
    if (path / RUN).exists():
        from .exporters import write_model

        model, known = open_model(path)
        return write_model(model, path / "serving", known).parent
    raise TfnError(f"{path} holds no bundle; make one with `tfn export RUN`")
