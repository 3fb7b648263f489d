"""`sppo-cli bench scorer`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from . import bench


def scorer(
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, help="Groups that are asked about at once.")
    ] = 200,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Medians are of so many.")] = 5,
    computed: Annotated[
        int, typer.Option("--computed", min=1, help="Groups that are computed in each round.")
    ] = 200,
    as_json: bench.AsJson = False,
) -> None:
    """The scorer service under load: waiting, computing, killed. Half a minute.

    A scorer that awaits 0.1 s: how long groups take that are asked about at once. One that
    computes for some 40 ms: groups a second, against as many processes that only call it. And a
    service that is killed with groups in hand and started again: each must get its own answer.
    """
    from sppo.bench import scorer as tool

    found = tool.measure(at_once, rounds, computed, lambda text: typer.echo(text, err=True))
    if not as_json:
        typer.echo("\n" + "\n".join(tool.table(found)))
    bench._answer(asdict(found), tool.checks(found), as_json)
