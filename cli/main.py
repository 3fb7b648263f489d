"""`sppo-cli`: every command parses and checks its input before anything heavy is imported."""

from __future__ import annotations

import json
import locale
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppo import __version__
from sppo.errors import ConfigError, SppoError
from sppo.launch import terminal

from . import (
    bench,
    bench_judge,
    bench_learner,
    bench_scorer,
    config_commands,
    eval_commands,
    plan_command,
    reports,
    role_commands,
)

if TYPE_CHECKING:
    from sppo.config import RunConfig

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

RunDir = Annotated[Path, typer.Argument(help="The run directory.")]
AcceptChangedData = Annotated[
    bool,
    typer.Option(
        "--accept-changed-data",
        help="Resume although the task's data is not what the run began with.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


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


@app.command(
    epilog="Examples: sppo-cli up quickstart | sppo-cli up my.toml --set optimizer.lr=1e-6 "
    "--run-dir runs/a"
)
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
            from sppo.launch import supervisor
            from sppo.launch.progress import Progress

            with Progress(resolved.learner.steps, stream) as progress:
                return supervisor.run(resolved, folder, run_key, progress)

    again = ["up", config, *_given(set_)]
    _train(config, resolved, folder, start, again=again, accept=accept_changed_data)


@app.command(
    epilog="Example: SPPO_BROKER__PASSWORD=... sppo-cli learner my.toml --run-dir runs/my-run"
)
def learner(
    config: role_commands.Source,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="As for `up`; default runs/<name>.")
    ] = None,
    set_: role_commands.Overrides = None,
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
        typer.echo(f"checking {source} ...")
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
        raise SppoError(f"{_one_line(error)}; {_keep_traceback(log)}") from error


def _keep_traceback(log: Path) -> str:
    """Where it is; must not hide the error, which may be a full disk."""
    try:
        with log.open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    except OSError as error:
        return f"the traceback could not be kept in {log}: {error.strerror}"
    return f"the traceback is in {log}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"


@app.command(
    epilog="Examples: sppo-cli chaos quickstart --seed 1 --minutes 10 --json | sppo-cli chaos "
    "runs/stopped"
)
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
            reports.print_run(
                run_dir, value, [str(state.get("by", "up")), str(run_dir / "config.toml")]
            )
        elif value is not None and key != "summary":
            typer.echo(f"{key:18} {value}")


@app.command(epilog="Example: sppo-cli down runs/quickstart")
def down(run_dir: RunDir = Path("runs/quickstart")) -> None:
    """End a running run: every role stops, a checkpoint is saved."""
    from sppo.launch import run_dir as run_dirs

    run_dirs.describe(run_dir)
    ended = run_dirs.end(run_dir, lambda phase: typer.echo(f"{phase} ..."))
    typer.echo("ended" if ended else f"{run_dir}: nothing is running")


role_commands.register(app)
eval_commands.register(app)


def begin() -> None:
    """Entry point of `sppo-cli`."""
    _begin_alike()
    run()


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
        typer.echo(f"error: {_one_line(error)}; {_keep_traceback(log)}", err=True)
        sys.exit(1)


def _begin_alike() -> None:
    """In this process and in those that it starts files are UTF-8 whatever the locale says, and
    sets of texts have one order: some tasks draw their questions from such a set, and every role
    must draw the same.
    """
    utf8 = sys.flags.utf8_mode or locale.getpreferredencoding(False).lower() in ("utf-8", "utf8")
    if not utf8 or os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        if not utf8:
            os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
