"""`sppo-cli trace`: the life of each group, for Perfetto."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sppo-cli trace runs/quickstart --out trace.json")(trace)


def trace(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write it; default: RUN/trace.json.")
    ] = None,
    otlp: Annotated[
        bool,
        typer.Option(
            "--otlp", help="Send OpenTelemetry spans to OTEL_EXPORTER_OTLP_ENDPOINT instead."
        ),
    ] = False,
) -> None:
    """Write when each group was issued, leased, sampled, scored, pushed, claimed and trained.

    The file is in the Trace Event Format: open it at https://ui.perfetto.dev or in
    chrome://tracing. Generators' clocks are moved by what the order of things shows
    (docs/tracking.md).
    """
    from sppo import otel, spans

    lines = spans.read(run_dir)
    if otlp:
        otel.check()
        found = otel.made(lines, run_dir.resolve().name)
        otel.send(found)
        typer.echo(f"{len(found)} spans were sent")
        return
    target = out or run_dir / "trace.json"
    target.write_text(json.dumps(spans.trace(lines)), encoding="utf-8")
    n = sum(len(line["groups"]) for line in lines)
    typer.echo(f"{target}: {n} groups of {len(lines)} steps; open it at https://ui.perfetto.dev")
    for name, seconds in spans.shifts(lines).items():
        if abs(seconds) >= 0.001:
            typer.echo(f"the clock of {name} is moved by {seconds:+.3f} s")
