"""`sppo-cli`: every command parses and checks its input before anything heavy is imported."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from sppo import __version__
from sppo.errors import SppoError
from sppo.launch import terminal

from . import (
    bench,
    bench_judge,
    bench_learner,
    bench_scorer,
    config_commands,
    doctor_command,
    eval_commands,
    plan_command,
    replay_command,
    report_command,
    role_commands,
    run_commands,
    top_command,
    trace_command,
    traces,
    track_command,
    train_commands,
)

app = typer.Typer(
    name="sppo-cli",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Post-train language models with Self-Play Preference Optimization, asynchronously.",
    epilog="Example: sppo-cli up quickstart. Exit codes: 0 done, or stopped on request; 1 other; "
    "2 something you can "
    "mend; 3 a role died for good; 4 the broker; 5 a weight sync; 6 engine and learner disagree on "
    "log-probs; "
    "7 a scorer that scores nothing.",
)

bench.app.command(
    epilog="Example: sppo-cli bench judge labelled.jsonl --set "
    "scorer.judge.url=http://127.0.0.1:8000 --set scorer.judge.model=..."
)(bench_judge.judge)
bench.app.command(
    epilog="Examples: sppo-cli bench learner --json | sppo-cli bench learner --count"
)(bench_learner.learner)
bench.app.command(epilog="Example: sppo-cli bench scorer --json")(bench_scorer.scorer)
app.command(
    epilog="Examples: sppo-cli plan math-7b | sppo-cli plan my.toml --gpu 40GB --set "
    "learner.ranks=4 --json"
)(plan_command.plan)
app.add_typer(bench.app, name="bench")
app.add_typer(config_commands.app, name="config")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Post-train language models with Self-Play Preference Optimization, asynchronously."""


for commands in (
    train_commands,
    run_commands,
    top_command,
    report_command,
    replay_command,
    role_commands,
    eval_commands,
    track_command,
    doctor_command,
    trace_command,
):
    commands.register(app)


def run() -> None:
    """The command of this process's arguments: a user's mistake is one message and an exit code,
    never a traceback.
    """
    terminal.make_usable()
    try:
        sys.path.insert(0, os.getcwd())  # a user's scorer may lie beside the configuration
        app()
    except SppoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder taken away
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - said in one line; the traceback is kept
        log = Path(tempfile.gettempdir()) / f"sppo-error-{os.getpid()}.log"
        typer.echo(f"error: {traces.one_line(error)}; {traces.keep(log)}", err=True)
        sys.exit(1)
