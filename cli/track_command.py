"""`sppo-cli track`: show a run that is there already in trackers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from sppo.errors import SppoError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: WANDB_MODE=offline sppo-cli track runs/quickstart --to wandb")(
        track
    )


def track(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")],
    to: Annotated[
        list[str], typer.Option("--to", help="tensorboard, wandb, trackio, mlflow. Repeatable.")
    ],
) -> None:
    """Write to a tracker what it does not have of a run yet.

    For a run that was not tracked, or whose tracker was away. A run with track.to does it by itself
    while it goes on. Where each tracker writes, its own variables say (docs/tracking.md).
    """
    from sppo.track import follower, process, tracker

    tracker.check(to)
    follower.about(run_dir, "")
    ended = threading.Event()
    ended.set()  # what is there, and no more
    for name in to:

        def say(text: str, name: str = name) -> None:
            typer.echo(f"{name}: {text}", err=True)

        path = run_dir / "logs" / f"track-{name}.log"
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            if not process.Work(name, run_dir, say, ended, log=log).run():
                raise SppoError(f"{name} has not got all of {run_dir}; details are in {path}")
        typer.echo(f"{name} has all of {run_dir}")
