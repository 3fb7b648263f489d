"""`sppo-cli plan`: what a run would take, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppo.errors import ConfigError

if TYPE_CHECKING:
    from sppo.config import RunConfig

GB = 1e9
Machines = Annotated[
    str,
    typer.Option(
        "--machines",
        help="With --dry-run: machines x GPUs of each, such as 2x8, to show where roles go.",
    ),
]


def plan(
    config: Annotated[str, typer.Argument(help="A TOML file, or a preset, as for `up`.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="As for `up`. Repeatable.")
    ] = None,
    gpu: Annotated[
        str,
        typer.Option(
            "--gpu",
            help="GPUs to plan for: h100, a100-80, ..., or a size such as 40GB; by default what "
            "`up` would take here.",
        ),
    ] = "",
    bandwidth: Annotated[
        float,
        typer.Option("--bandwidth", min=0.001, help="GB/s from the learner to generators."),
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count the memory of every role and device, the broker's traffic and the seconds of a weight
    sync.

    Needs the model's config.json and no weights; looks at the longest prompts and completions that
    the settings allow. Ranks stand on machines of LOCAL_WORLD_SIZE, or of eight. Exit code 2 if
    something does not fit, with the setting that mends it.
    """
    from sppo import config as settings

    resolved = settings.load(config, set_)
    from sppo.launch import plan as launch
    from sppo.plan import table

    found = launch.counted(resolved, gpu=gpu, bandwidth=bandwidth * GB)
    typer.echo(json.dumps(found.figures()) if as_json else "\n".join(table.lines(found)))
    refuse(found.refusals)


def dry_run(config: RunConfig, run_dir: Path, machines: str = "") -> None:
    """What `up` would start, where, of which data if that is here, and what it takes where that can
    be counted. Raises ConfigError if something does not fit, or data or the names of the
    engine's arguments are wrong.
    """
    from sppo import compute
    from sppo.launch import plan as launch
    from sppo.launch import preflight
    from sppo.plan import table
    from sppo.plan.uncounted import UncountedError

    typer.echo("\n".join(launch.describe(config, run_dir)))
    preflight.engine_names(config)
    if not launch.absent_data(config):
        typer.echo(f"data              {preflight.rows(config).describe()}")
    gpus = bool(launch.gpus_here() or machines or config.launch.ray_address)
    cuda = compute.on_gpu(config, gpus=gpus)
    typer.echo("\n".join(launch.placed(config, cuda=cuda, machines=machines)))
    try:
        each = launch.ranks_each(config, cuda=cuda, machines=machines)
        found = launch.counted(config, ranks_each=each)
    except UncountedError as error:
        typer.echo(f"\nnot counted: {error}")
        return
    typer.echo("\n".join(["", *table.lines(found)]))
    refuse(found.refusals)


def refuse(reasons: Sequence[str]) -> None:
    """Raises ConfigError if there are any."""
    if reasons:
        raise ConfigError("this does not fit: " + "; ".join(reasons))
