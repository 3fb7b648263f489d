"""`sppo-cli replay`: one optimizer step again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

TERMS = ("score", "delta", "target", "weight", "residual", "loss", "gradient", "kl", "entropy")
"""Columns of a completion, where any has them."""
FLAG = {True: "", False: "differs"}
ALWAYS = ("loss", "grad_norm", "lr")
"""Figures that are shown even if they are the same."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sppo-cli replay runs/quickstart --step 57 --json")(replay)


def replay(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")],
    step: Annotated[int, typer.Option("--step", min=1, help="The optimizer step.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with every token.")
    ] = False,
) -> None:
    """Take one optimizer step again, from the groups and the weights that a run kept: every term of
    the loss for each completion, and the step's figures beside those that were recorded.

    Takes the steps since the newest checkpoint before it too, and as much memory as the learner.
    Changes nothing in the run directory. learner.keep_groups says of how many steps groups are
    kept.
    """
    from sppo import config as settings
    from sppo.launch import run_dir as run_dirs

    run_dirs.describe(run_dir)
    resolved = settings.load(str(run_dir / "config.toml"), environment=False)
    from sppo.learner import replay as learner
    from sppo.report.gather import finite

    found = learner.replay(run_dir, resolved, step, lambda text: typer.echo(text, err=True))
    typer.echo(json.dumps(finite(found), allow_nan=False) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    """For people: what differs from the record, then the completions."""
    return [
        f"step {found['step']} again, {found['steps_taken']} steps from {found['from']}, in "
        f"{found['compute']}",
        "",
        *_compared(found),
        "",
        *_completions(found["completions"]),
    ]


def _compared(found: dict[str, Any]) -> list[str]:
    figures = found["metrics"]
    same = sum(each["same"] for each in figures)
    head = f"{same} of {len(figures)} figures are as they were recorded, but for rounding"
    if not found["recorded"]:
        head = "the step was not recorded: the learner ended in it, or its record was given up"
    rows = [each for each in figures if each["name"] in ALWAYS or not each["same"]]
    return [
        head,
        *_table(
            ("figure", "recorded", "again", ""),
            [
                (f["name"], _number(f["recorded"]), _number(f["again"]), FLAG[f["same"]])
                for f in rows
            ],
        ),
    ]


def _completions(rows: list[dict[str, Any]]) -> list[str]:
    terms = [name for name in TERMS if any(row.get(name) is not None for row in rows)]
    unfed = sum(not row["fed"] for row in rows)
    table = _table(
        ("ticket", "", "tokens", *terms),
        [(row["uid"], str(row["completion"]), str(row["length"]),
          *(_number(row.get(name)) for name in terms)) for row in rows],
    )  # fmt: skip
    if unfed:
        table.append(
            f"{unfed} of {len(rows)} completions did not go through the model: their groups have "
            "no gradient, or the objective left them out"
        )
    return table


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
