"""`sppo-cli samples`: what the model said, on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from sppo import samples as kept

MARKS = {"stop": "", "length": ", cut at max_tokens"}


def samples(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")],
    step: Annotated[
        int | None,
        typer.Option("--step", help="Only of this step; -1 is the last, -2 the one before it."),
    ] = None,
    sort: Annotated[
        str,
        typer.Option("--sort", help="step; best or worst completion first; length, longest first."),
    ] = "step",
    grep: Annotated[
        str,
        typer.Option(
            "--grep", help="Only with this regular expression in the prompt or an answer."
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, as in samples.jsonl.")
    ] = False,
) -> None:
    """Page through groups that a run kept: prompts, completions, scores, what the scorer said.

    Of each step and evaluation: the best, the worst and the most truncated group, and
    learner.keep_samples others. Answers stand in the order of their scores. Piped into another
    program it is plain text.
    """
    found = kept.select(kept.read(run_dir), step=step, grep=grep, sort=sort)
    if as_json:
        for sample in found:
            typer.echo(json.dumps(sample))
        return
    if not found:
        typer.echo("nothing matches")
        return
    if not sys.stdout.isatty():
        for sample in found:
            typer.echo("\n".join(text for text, _ in lines(sample)))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    with console.pager(styles=True):
        for sample in found:
            for text, style in lines(sample):
                console.print(Text(text, style=style))


def lines(sample: kept.Sample) -> Iterator[tuple[str, str]]:
    """(text, style) of a sample, a paragraph each."""
    about = ", ".join(sample["why"])
    yield f"── step {sample['step']}  {sample['stream']}  {sample['uid']}  ({about})", "bold cyan"
    for message in sample["messages"]:
        yield f"{message['role']}: {message['content']}", "dim"
    scores = kept.scores(sample)
    word = "reward" if sample["rewards"] is not None else "win rate"
    for i in sorted(range(len(scores)), key=lambda i: _order(scores[i])):
        score = "not compared" if scores[i] is None else f"{word} {scores[i]:.3g}"
        cut = MARKS.get(sample["finish_reasons"][i], "")
        yield f"\n[{i}] {score}, {sample['lengths'][i]} tokens{cut}", "bold"
        yield sample["completions"][i], ""
        if sample["details"] and sample["details"][i]:
            yield f"    {_details(sample['details'][i])}", "dim"
    if sample["of"] > len(scores):
        yield f"\n({sample['of'] - len(scores)} more completions were not kept)", "dim"
    yield "", ""


def _order(score: float | None) -> float:
    return float("inf") if score is None else -score


def _details(details: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {_short(value)}" for name, value in details.items())


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
