"""`python -m tfn.tools.conformance bits [NAME]...`: the same bits whatever the number of threads?"""

from __future__ import annotations

import json as jsonlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from ...compiler.errors import TfnError
from ..bench.command import select
from ..bench.peer import Peer, PeerFailed, PeerSpec, environment
from ..bench.worker.workload import Workload
from ..console import console, errors

STEPS = 3
"""Of each workload: the third training step works on weights that the first two have changed."""


def command(
    names: list[str] = typer.Argument(None, metavar="[NAME]...",
                                      help="Workloads of `tfn bench`, families or patterns."
                                      "  [default: all]"),
    threads: int = typer.Option(2, min=2, help="Threads that are compared with one."),
    json: Path = typer.Option(None, "--json", help="Write the results to this file."),
) -> None:
    """Run the workloads of `tfn bench` with one thread and with several, and compare all bits.

    Predictions are also made of the batch in the opposite order: an example's result must not depend
    on its place. The exit code is 1 when anything differs or fails.
    """
    try:
        chosen = select(names or [])
    except TfnError as error:
        raise typer.BadParameter(str(error)) from None
    with errors.status("") as status:
        rows = compare(chosen, threads, status.update)
    if json is not None:
        json.write_text(jsonlib.dumps({"results": rows}, indent=1) + "\n", encoding="utf-8")
    table = Table("workload", f"1 and {threads} threads", "any place in the batch")
    said = {True: "same bits", False: "[red]differ[/]", None: ""}
    for row in rows:
        table.add_row(row["workload"], row["failed"] or said[row["same"]], said[row["any_position"]])
    console.print(table)
    good = all(row["same"] and row["any_position"] is not False for row in rows)
    raise typer.Exit(0 if good else 1)


def compare(workloads: Sequence[Workload], threads: int,
            said: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """A row for each workload; each is run by fresh processes."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="tfn-bits-") as cache:
        peers = [Peer(PeerSpec("tfn", sys.executable), count,
                      environment(count, Path(cache), os.environ)) for count in (1, threads)]
        try:
            for workload in workloads:
                said(workload.name)
                rows.append(_row(workload, peers))
        finally:
            for peer in peers:
                peer.stop()
    return rows


def _row(workload: Workload, peers: Sequence[Peer]) -> dict[str, Any]:
    row: dict[str, Any] = {"workload": workload.name, "same": None, "any_position": None, "failed": ""}
    try:
        found = [_results(peer, workload) for peer in peers]
    except PeerFailed as failure:
        return {**row, "failed": str(failure)}
    places = [f["any_position"] for f in found if f["any_position"] is not None]
    return {**row, "same": len({f["digest"] for f in found}) == 1,
            "any_position": all(places) if places else None}


def _results(peer: Peer, workload: Workload) -> dict[str, Any]:
    if not peer.running or (workload.own_process and not peer.fresh):
        peer.start()
    peer.fresh = False
    peer.ask("open", workload=workload.name)
    peer.ask("steps", count=STEPS)
    found = peer.ask("digest")
    peer.ask("close")
    return found
