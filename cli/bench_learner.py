"""`sppo-cli bench learner`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from . import bench


def learner(
    steps: Annotated[int, typer.Option("--steps", min=1, help="Counted steps of a process.")] = 3,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Processes of each side, by turns.")
    ] = 3,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="As for `up quickstart`. Repeatable.")
    ] = None,
    count: Annotated[
        bool,
        typer.Option(
            "--count", help="Instead, count operations and bytes on tensors without memory."
        ),
    ] = False,
    as_json: bench.AsJson = False,
) -> None:
    """One optimizer step on identical groups against TRL's GRPOTrainer, our own padded path, and
    the bare matrix products of its useful FLOPs: seconds and memory, on this machine's CPU.

    Each side has a process of its own; they alternate. Judged in the number format that the
    processor is fast in. Needs `pip install 'sppo[bench]'`. About ten minutes on two cores.

    With --count: operations spent over those needed, of attention and of the rest, and bytes at
    the peak of a rank, for the default model and for one of 7 billion parameters with completions
    of 512, 4,096 and 16,384 tokens. Seconds, no GPU and no weights.
    """
    if count:
        _count(as_json)
        return
    from sppo.bench import learner as tool

    found = tool.measure(
        set_ or [], steps=steps, rounds=rounds, say=lambda text: typer.echo(text, err=True)
    )
    if not as_json:
        typer.echo("\n" + "\n".join(tool.table(found)))
    bench._answer(asdict(found), tool.checks(found), as_json)


def _count(as_json: bool) -> None:
    from sppo.bench import learner_count as tool

    found = tool.measure()
    if not as_json:
        typer.echo("\n".join(tool.table(found)))
    bench._answer({"groups": [asdict(c) for c in found]}, tool.checks(found), as_json)
