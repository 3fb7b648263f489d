"""`sppo-cli up` and `sppo-cli learner`: what checks, starts and trains a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppo.errors import ConfigError, SppoError
from sppo.launch import terminal

from . import plan_command, reports, traces
from .role_commands import Overrides, Source

if TYPE_CHECKING:
    from sppo.config import RunConfig

AcceptChangedData = Annotated[
    bool,
    typer.Option(
        "--accept-changed-data",
        help="Resume although the task's data is not what the run began with.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog="Examples: sppo-cli up quickstart | sppo-cli up my.toml --set optimizer.lr=1e-6 "
        "--run-dir runs/a"
    )(up)
    app.command(
        epilog="Example: SPPO_BROKER__PASSWORD=... sppo-cli learner my.toml --run-dir runs/my-run"
    )(learner)


def up(
    config: Annotated[
        str,
        typer.Argument(
            help="A TOML file, or a preset: quickstart, quickstart-preferences, gsm8k, math, "
            "ultrafeedback, paper, math-7b, one-gpu, two-gpus, eight-gpus, cluster."
        ),
    ] = "",
    preset: Annotated[str, typer.Option("--preset", help="The same as the argument.")] = "",
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run-dir", help="Where the run is kept; default runs/<name>. Resumes what is there."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override one setting: section.setting=value. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be started and what it takes (as `plan`), and start nothing. "
            "Exit code 2 if something does not fit.",
        ),
    ] = False,
    machines: plan_command.Machines = "",
    accept_changed_data: AcceptChangedData = False,
) -> None:
    """Start a run, or resume one: broker, scorers, generators and learner, here or on a Ray
    cluster.

    Settings come from the file, then SPPO_<SECTION>__<SETTING> in the environment, then --set. All
    of them with their meaning: docs/configuration.md. Ctrl-C saves a checkpoint and ends every
    role.
    """
    from sppo import config as settings

    config = config or preset
    if not config:
        raise ConfigError(
            f"name what to run: a TOML file, or a preset ({', '.join(settings.presets())})"
        )
    resolved = settings.load(config, set_)
    folder = run_dir or Path("runs") / resolved.name
    if dry_run:
        plan_command.dry_run(resolved, folder, machines)
        return

    def start(run_key: str) -> dict[str, Any]:
        with terminal.kept_for_us(_log(folder)) as stream:
            from sppo.launch import supervisor, words
            from sppo.launch.progress import Progress

            with Progress(resolved.learner.steps, stream, words.takes(resolved)) as progress:
                return supervisor.run(resolved, folder, run_key, progress)

    again = ["up", config, *_given(set_)]
    _train(config, resolved, folder, start, again=again, accept=accept_changed_data)


def learner(
    config: Source,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="As for `up`; default runs/<name>.")
    ] = None,
    set_: Overrides = None,
    accept_changed_data: AcceptChangedData = False,
) -> None:
    """Open a run on a broker and train it: the learner alone, for generators and scorers that are
    started by hand.

    Needs broker.url and SPPO_BROKER__PASSWORD. Ctrl-C, SIGTERM or `sppo-cli down` save a
    checkpoint; the others wait for the learner to come back, and end when it is done.

    With learner.ranks above 1 on several machines: one such command for each rank, with RANK,
    WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them.
    """
    from sppo import config as settings
    from sppo.launch import roles
    from sppo.learner import place

    resolved = settings.load(config, set_)
    roles.needs_server(resolved, "learner")
    here = place.find(resolved, os.environ)
    folder = run_dir or Path("runs") / resolved.name

    def start(run_key: str) -> dict[str, Any]:
        return roles.run_learner_alone(resolved, run_key, folder, here)

    roles.prepare()
    if here is not None and here.rank:
        from sppo.learner import follower

        follower.by_hand(resolved, here)
        return

    _train(
        config,
        resolved,
        folder,
        start,
        again=["learner", config, *_given(set_)],
        accept=accept_changed_data,
    )


def _given(set_: list[str] | None) -> list[str]:
    return [f"--set={s}" for s in set_ or []]


def _log(folder: Path) -> Path:
    return folder / "logs" / "up.log"


def _train(
    source: str,
    config: RunConfig,
    folder: Path,
    start: Callable[[str], dict[str, Any]],
    *,
    again: Sequence[str],
    accept: bool,
) -> None:
    """Check everything, then `start` the run of this folder under the key it is given."""
    from sppo.launch import preflight
    from sppo.launch import run_dir as run_dirs

    with run_dirs.locked(folder), _explained(_log(folder)):
        run_dirs.check(folder, config)
        done = run_dirs.read_json(folder / "summary.json")
        if done and done["finished"] and done["steps"] >= config.learner.steps:
            typer.echo(
                f"{folder} is finished; to go on, raise it: --set "
                f"learner.steps={2 * config.learner.steps}"
            )
            reports.print_run(folder, done, again)
            return
        preflight.at_once(config, folder, role=again[0])
        typer.echo(f"checking {source}: packages, rows, model (10 s and more) ...")
        with terminal.kept_for_us(_log(folder)) as stream:

            def tell(words: str) -> None:
                print(words, file=stream, flush=True)

            anew = preflight.thorough(config, folder, tell, role=again[0], accept=accept)
        reports.print_run(folder, start(run_dirs.claim(folder, config, anew=anew)), again)


@contextmanager
def _explained(log: Path) -> Iterator[None]:
    """Raises what nobody foresaw as one line that names the log; its traceback is kept there."""
    try:
        yield
    except SppoError:
        raise
    except Exception as error:
        raise SppoError(f"{traces.one_line(error)}; {traces.keep(log)}") from error
