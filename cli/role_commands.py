"""Each role as a command of its own, for Slurm, Kubernetes, systemd or a terminal, and `scale`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppo import config as settings
from sppo.errors import ConfigError, RoleDiedError, SppoError

if TYPE_CHECKING:
    from sppo.config import RunConfig

Source = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A TOML file or a preset; the same for every role.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="section.setting=value, as for `up`. Repeatable.")
]
Name = Annotated[
    str,
    typer.Option(
        "--name", help="Name in the registry; default: made of the host's name and the process id."
    ),
]


def generator(config: Source, name: Name = "", set_: Overrides = None) -> None:
    """Sample completions for a run that a learner has opened, until it ends.

    Needs broker.url and SPPO_BROKER__PASSWORD. Ctrl-C or SIGTERM: takes no more tickets, finishes
    those in hand for up to 20 s, hands back the rest, and leaves; a second one ends it at once.
    """
    _work("generator", settings.load(config, set_), name)


def scorer(config: Source, name: Name = "", set_: Overrides = None) -> None:
    """Serve the run's scorer over HTTP, until the run ends.

    Listens at scorer.host and announces its address in the registry; every generator must reach it
    there. With SPPO_SCORER__TOKEN, which every role needs then, requests carry that token.
    """
    resolved = settings.load(config, set_)
    if resolved.scorer.mode != "http" or resolved.scorer.url:
        raise ConfigError(
            "scorer.mode = 'inline' scores inside each generator, and scorer.url names a service "
            "that runs elsewhere: "
            "with neither, this command has work"
        )
    _work("scorer", resolved, name)


def _work(role: str, config: RunConfig, name: str) -> None:
    from sppo import marks
    from sppo.launch import machine, roles

    roles.needs_server(config, role)
    machine.check(config, role)
    roles.prepare()
    if name and not name.startswith(f"{role}-"):
        name = f"{role}-{name}"
    name = name or roles.own_name(role)
    with roles.only_here(config, name) as mark:
        os.environ[marks.VARIABLE] = mark
        try:
            roles.run_worker(role, name, config)
        except SppoError:
            raise
        except Exception as error:
            logging.exception("%s ends", name)
            raise RoleDiedError(
                f"{name} ended by itself: {type(error).__name__}: {error}"
            ) from error


def broker(
    config: Source,
    folder: Annotated[Path, typer.Option("--dir", help="Where its data is kept.")] = Path(
        "runs/broker"
    ),
    set_: Overrides = None,
) -> None:
    """Serve the broker at broker.url for roles that are started by hand, until Ctrl-C.

    For one machine: broker.url must be a loopback address such as redis://127.0.0.1:6379, and
    SPPO_BROKER__PASSWORD is the password that every role needs. The server that sppo carries has no
    TLS; for several machines run a Redis or Valkey of your own (docs/operations.md).
    """
    from sppo.launch import machine, roles
    from sppo.transport import server

    resolved = settings.load(config, set_)
    roles.needs_server(resolved, "broker")
    machine.check(resolved, "broker")
    server.serve(resolved.broker, folder, typer.echo)


def scale(
    what: Annotated[
        list[str],
        typer.Argument(metavar="ROLE=NUMBER...", help="generators=3, scorers=2, or both."),
    ],
    run_dir: Annotated[Path, typer.Option("--run-dir", help="The running job.")] = Path(
        "runs/quickstart"
    ),
    wait: Annotated[
        bool, typer.Option(help="Wait until all are at work and the leavers are gone.")
    ] = True,
) -> None:
    """Change how many generators and scorers of a running job there are; the learner goes on
    meanwhile.

    Newcomers get the newest weights, then take tickets. Leavers finish or hand back what they have.
    More than Ray has room for is refused, and nothing changes.
    """
    from sppo.launch import run_dir as run_dirs
    from sppo.launch import scaling

    wanted = scaling.parse(what)
    run_dirs.describe(run_dir)
    run = settings.load(str(run_dir / "config.toml"), environment=False)
    identity = scaling.request(run_dir, wanted)
    if wait:
        limit_s = run.generator.start_timeout_s + scaling.SYNC_PATIENCE_S
        scaling.follow(run_dir, identity, wanted, typer.echo, timeout_s=limit_s)


def register(app: typer.Typer) -> None:
    """Add these commands to `sppo-cli`."""
    for command, example in (
        (generator, "sppo-cli generator my.toml --set generator.host=10.0.0.7"),
        (scorer, "sppo-cli scorer my.toml --set scorer.host=10.0.0.8"),
        (
            broker,
            "SPPO_BROKER__PASSWORD=... sppo-cli broker my.toml --set "
            "broker.url=redis://127.0.0.1:6379",
        ),
        (scale, "sppo-cli scale generators=3 scorers=2 --run-dir runs/my-run"),
    ):
        app.command(epilog=f"Example: {example}")(command)
