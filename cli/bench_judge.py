"""`sppo-cli bench judge`: what a judge is worth, on pairs of which the better one is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .bench import AsJson


def judge(
    file: Annotated[
        Path, typer.Argument(help="JSON lines of labelled answers: docs/scorers/llm-judge.md.")
    ],
    config: Annotated[
        str, typer.Option("--config", help="A TOML file or preset with the section [scorer.judge].")
    ] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="scorer.judge.<setting>=value, as for `up`. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A judge against labels: agreement, position bias, length bias, intransitive triples, calls,
    seconds.

    Each pair is asked about in both orders. A line is {"prompt", "a", "b", "label"} with label a, b
    or tie, or {"prompt", "answers", "scores"} for several answers at once. The judge is that of
    [scorer.judge]; its key is SPPO_SCORER__JUDGE__API_KEY. Nothing is judged against a bar: what
    agreement is good depends on the labels.
    """
    from sppo import config as settings
    from sppo.bench import judge as bench

    resolved = settings.load(config, set_).scorer.judge
    pairs = bench.read(file)
    found = bench.measure(resolved, pairs, lambda text: typer.echo(text, err=True))
    typer.echo(bench.as_json(found) if as_json else "\n" + "\n".join(bench.table(found)))
    if said := bench.complaint(found, resolved):
        typer.echo(f"warning: {said}", err=True)
