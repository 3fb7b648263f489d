"""`sppo-cli report`: runs as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples: sppo-cli report runs/quickstart | sppo-cli report runs/a runs/b --out "
        "both.html"
    )(report)


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories, side by side.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Default: report.html in the first of them.")
    ] = None,
) -> None:
    """Write what is known of runs as one HTML file: curves, what every role did when, samples, what
    went wrong, configuration.

    The file loads nothing from anywhere; it holds prompts and answers, but no secrets. Runs that
    go on, or have died, have a report too.
    """
    from sppo.report import page

    text = page.make(run_dirs)
    path = out or run_dirs[0] / "report.html"
    path.write_text(text, encoding="utf-8")
    typer.echo(f"{path} ({len(text.encode()) / 1e6:.1f} MB)")
    if len(text.encode()) > page.MOST_BYTES:
        typer.echo(
            f"it is above {page.MOST_BYTES / 1e6:.0f} MB without any samples: name fewer runs"
        )
