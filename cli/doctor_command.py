"""`sppo-cli doctor`: what this machine is like for a run, with the mend of what is not right."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppo.errors import ConfigError

if TYPE_CHECKING:
    from sppo.doctor.findings import Finding, State

WIDTH = 18


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples: sppo-cli doctor | sppo-cli doctor my.toml --run-dir /data/runs/a --json"
    )(doctor)


def doctor(
    config: Annotated[
        str, typer.Argument(help="A TOML file, or a preset, as for `up`.")
    ] = "quickstart",
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="As for `up`; default runs/<name>.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="As for `up`. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at this machine for a run: packages, GPUs, NCCL, memory, limits, disk, model, broker,
    network.

    Each line is ok, warn or fail with the mend, or skip with the reason. No engine is started; the
    embedded broker is, for a moment, in a folder beside the run directory. Exit code 2 if a line
    fails.
    """
    from sppo import config as settings

    resolved = settings.load(config, set_)
    from sppo.doctor import examine, findings

    began = time.monotonic()
    folder = run_dir or Path("runs") / resolved.name
    found = examine.examine(findings.Run(config=resolved, folder=folder))
    took_s, counts = time.monotonic() - began, findings.counted(found)
    if as_json:
        told = {"findings": [asdict(f) for f in found], "seconds": round(took_s, 2)}
        typer.echo(json.dumps(told | counts))
    else:
        typer.echo("\n".join([*lines(found), _sum(config, counts, took_s)]))
    if failed := [finding.name for finding in found if finding.state == "fail"]:
        raise ConfigError(f"not right for {config}: {', '.join(failed)}")


def lines(found: Sequence[Finding]) -> list[str]:
    """For a person: the mend below what it mends."""
    told = []
    for finding in found:
        told.append(f"{finding.state:5} {finding.name:{WIDTH}} {finding.words}")
        if finding.mend:
            told.append(f"{'':5} {'':{WIDTH}} mend: {finding.mend}")
    return told


def _sum(config: str, counts: dict[State, int], took_s: float) -> str:
    said = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    return f"{config} on this machine: {said}, in {took_s:.1f} s"
