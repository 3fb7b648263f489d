"""`sppo-cli top`: a live view of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sppo.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sppo-cli top runs/quickstart")(top)


def top(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")] = Path(
        "runs/quickstart"
    ),
) -> None:
    """Watch a run in this terminal: roles, buffer, curves, warnings, the newest sample.

    Reads the run directory alone: beside `up`, in another terminal, over SSH, or after the run has
    ended. Keys: p pause and resume, c checkpoint, e evaluate, s scale, ? help, q quit. 80 columns
    and 24 lines are enough; NO_COLOR is heeded.
    """
    import sys

    from sppo.launch import run_dir as run_dirs

    run_dirs.describe(run_dir)
    if not sys.stdout.isatty():
        raise ConfigError(f"top wants a terminal; `sppo-cli status {run_dir}` does not")
    from sppo.top.app import Top

    for size in ("COLUMNS", "LINES"):  # where exported they would hide each new size
        os.environ.pop(size, None)
    Top(run_dir).run()
