"""`sppo-cli`: every command parses and checks its input before anything heavy is imported."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppo import __version__
from sppo.errors import SppoError

from . import bench

if TYPE_CHECKING:
    from sppo.config import RunConfig

app = typer.Typer(
    name="sppo-cli",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Post-train language models with Self-Play Preference Optimization, asynchronously.",
    epilog="Example: sppo-cli up quickstart",
)

app.add_typer(bench.app, name="bench")

RunDir = Annotated[Path, typer.Argument(help="The run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Post-train language models with Self-Play Preference Optimization, asynchronously."""


@app.command(epilog="Examples: sppo-cli up quickstart | sppo-cli up my.toml --set learner.lr=1e-6 --run-dir runs/a")
def up(
    config: Annotated[str, typer.Argument(help="A TOML file, or a preset: quickstart, verl-math, paper.")],
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", help="Where the run is kept; default runs/<name>. Resumes what is there."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting: section.setting=value. Repeatable.")
    ] = None,
) -> None:
    """Start a run, or resume one: broker, scorer, generators and learner on this machine.

    Settings come from the file, then SPPO_<SECTION>__<SETTING> in the environment, then --set. All of them with their
    meaning: docs/configuration.md. Ctrl-C saves a checkpoint and ends every role.
    """
    from sppo import config as settings

    resolved = settings.load(config, set_)
    folder = run_dir or Path("runs") / resolved.name

    from sppo.launch import run_dir as run_dirs

    with run_dirs.locked(folder):
        _up(config, resolved, folder, again=shlex.join([config, *(f"--set={s}" for s in set_ or [])]))


def _up(source: str, config: RunConfig, folder: Path, *, again: str) -> None:
    from sppo.launch import run_dir as run_dirs

    run_dirs.check(folder, config)
    done = run_dirs.read_json(folder / "summary.json")
    if done and done["finished"] and done["steps"] >= config.learner.steps:
        typer.echo(f"{folder} is finished; to go on, raise it: --set learner.steps={2 * config.learner.steps}")
        _report(folder, done, again)
        return

    typer.echo(f"checking {source} ...")
    from sppo.launch.progress import Progress
    from sppo.launch.supervisor import Supervisor, preflight

    preflight(config)
    run_key = run_dirs.claim(folder, config)
    with Progress(config.learner.steps) as progress:
        summary = Supervisor(config, folder, run_key, progress).run()
    _report(folder, summary, again)


@app.command(epilog="Example: sppo-cli status runs/quickstart --json")
def status(run_dir: RunDir = Path("runs/quickstart"), as_json: AsJson = False) -> None:
    """Show a running or finished run."""
    from sppo.launch import run_dir as run_dirs

    state = run_dirs.describe(run_dir)
    if as_json:
        typer.echo(json.dumps(state))
        return
    for key, value in state.items():
        if key == "summary" and value:
            _report(run_dir, value)
        elif value is not None and key != "summary":
            typer.echo(f"{key:18} {value}")


@app.command(epilog="Example: sppo-cli down runs/quickstart")
def down(run_dir: RunDir = Path("runs/quickstart")) -> None:
    """End a running run: every role stops, a checkpoint is saved."""
    from sppo.launch import run_dir as run_dirs

    run_dirs.describe(run_dir)
    typer.echo("ended" if run_dirs.end(run_dir) else f"{run_dir}: nothing is running")


def _report(folder: Path, summary: dict[str, Any], again: str = "CONFIG") -> None:
    accuracy, tickets, syncs = summary["held_out_accuracy"], summary["tickets"], summary["syncs"]
    busy = ", ".join(f"{role} {share:.0%}" for role, share in summary["busy"].items())
    lines = [
        "",
        f"{'finished' if summary['finished'] else 'stopped'} after step {summary['steps']}, "
        f"{summary['wall_s']:.0f} s, peak memory {summary.get('peak_rss_mb', 0) / 1024:.1f} GiB of all processes",
        f"held-out greedy accuracy  {_percent(accuracy['before'])} before, {_percent(accuracy['after'])} after "
        f"({accuracy['n']} questions)",
        f"busy                      {busy}",
        f"tickets                   {tickets['issued']} issued, {tickets['trained']} trained, "
        f"{tickets['twice']} twice, {tickets['dead']} dead",
        f"weight syncs              {syncs['count']}, mean {syncs['mean_s']} s, longest {syncs['max_s']} s",
        f"checkpoints               {folder}/checkpoints",
    ]
    if summary["finished"]:
        lines += [
            f"exported model            {folder}/export (Hugging Face format)",
            "",
            "try next:",
            f"  vllm serve {folder}/export",
            f"  sppo-cli up {again} --run-dir {folder} --set=learner.steps={2 * summary['steps']}",
            f"  sppo-cli status {folder} --json",
        ]
    else:
        lines += ["", f"resume with: sppo-cli up {again} --run-dir {folder}"]
    typer.echo("\n".join(lines))


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.1%}"


def run() -> None:
    """Entry point of `sppo-cli`: a user's mistake is one message and an exit code, never a traceback."""
    sys.path.insert(0, os.getcwd())  # a user's scorer may lie beside the configuration
    try:
        app()
    except SppoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder taken away
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
