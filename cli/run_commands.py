"""Commands on the directory of a run: `status`, `down`, `ask`, `chaos`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sppo.errors import SppoError

from . import reports

RunDir = Annotated[Path, typer.Argument(help="The run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: sppo-cli status runs/quickstart --json")(status)
    app.command(epilog="Example: sppo-cli down runs/quickstart")(down)
    app.command(epilog="Example: sppo-cli ask pause --run-dir runs/my-run")(ask)
    app.command(
        epilog="Examples: sppo-cli chaos quickstart --seed 1 --minutes 10 --json | sppo-cli chaos "
        "runs/stopped"
    )(chaos)


def status(run_dir: RunDir = Path("runs/quickstart"), as_json: AsJson = False) -> None:
    """Show a running or finished run."""
    from sppo.launch import run_dir as run_dirs

    state = run_dirs.describe(run_dir)
    if as_json:
        typer.echo(json.dumps(state))
        return
    summary = state.pop("summary")
    reports.print_status(state)
    if summary:
        again = [str(state.get("by", "up")), str(run_dir / "config.toml")]
        reports.print_run(run_dir, summary, again)


def down(run_dir: RunDir = Path("runs/quickstart")) -> None:
    """End a running run: every role stops, a checkpoint is saved."""
    from sppo.launch import run_dir as run_dirs

    run_dirs.describe(run_dir)
    ended = run_dirs.end(run_dir, lambda phase: typer.echo(f"{phase} ..."))
    typer.echo("ended" if ended else f"{run_dir}: nothing is running")


def ask(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="pause, resume, checkpoint or evaluate.")
    ],
    run_dir: Annotated[Path, typer.Option("--run-dir", help="The running job.")] = Path(
        "runs/quickstart"
    ),
) -> None:
    """Ask the learner of a running job for something; it heeds that between two batches.

    While it is paused generators finish the batches ahead and wait. `checkpoint` and `evaluate`
    are done then too. A run that was stopped meanwhile does not begin paused.
    """
    from sppo.launch import asking

    typer.echo(asking.request(run_dir, what))


def chaos(
    target: Annotated[
        str,
        typer.Argument(
            help="A preset, a TOML file, or the directory of a stopped run, which is resumed."
        ),
    ] = "",
    preset: Annotated[str, typer.Option("--preset", help="The same as the argument.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the plan of faults.")] = 0,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0, help="How long faults go on after the first step.")
    ] = 10,
    every: Annotated[float, typer.Option("--every", min=5, help="Seconds between two kills.")] = 60,
    kinds: Annotated[str, typer.Option("--faults", help="Which: kill, stop, delay, partition.")] = (
        "kill,stop,delay,partition"
    ),
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Default: runs/<name>-chaos-<seed>.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="As for `up`. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Kill, stop, delay and cut off roles of a real run by a seeded plan, then count what became of
    every ticket.

    Starts the run itself, with the embedded broker, and lets it go on to its end; exit code 1 if a
    check fails.
    """
    from sppo.chaos import chaos as tool
    from sppo.launch import run_dir as run_dirs

    run = tool.prepare(
        target or preset, run_dir, set_ or [],
        seed=seed, minutes=minutes, every_s=every, kinds=kinds,
    )  # fmt: skip
    found = run.run(lambda text: typer.echo(text, err=as_json))
    report = {"seed": seed, "minutes": minutes} | found
    run_dirs.write_json(run.run_dir / "chaos.json", report)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        reports.print_chaos(report)
    failed = [c["name"] for c in report["checks"] if not c["ok"]]
    if failed:
        raise SppoError(f"not within the bar: {', '.join(failed)}")
