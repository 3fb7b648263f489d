"""What a person reads of an evaluation, and what is refused before anything is loaded."""

from __future__ import annotations

import io
from typing import Any

import pytest
from sppo_cli.commands import app
from sppo_cli.eval_commands import Counter, lines
from typer.testing import CliRunner

from sppo.errors import ConfigError

FOUND: dict[str, Any] = {
    "target": "runs/a", "task": "gsm8k", "scorer": "math", "k": 4, "temperature": 0.7,
    "max_tokens": 64, "n": 200, "failed": 1, "accuracy": 0.4, "interval": [0.335, 0.469],
    "reward_mean": 0.4, "pass_at": {"1": 0.4, "4": 0.7}, "majority": 0.5, "length_mean": 31.25,
    "truncated_share": 0.02, "against": None,
}  # fmt: skip
MET: dict[str, Any] = {
    "name": "base", "win_rate": 0.6, "interval": [0.53, 0.67], "wins": 100, "ties": 40,
    "losses": 60, "p": 0.0019, "n": 200, "unread": 3, "length_controlled": 0.55,
    "length_controlled_interval": [0.47, 0.63], "order_matters_share": 0.1, "accuracy": 0.2,
    "interval_of_accuracy": [0.15, 0.26], "length_mean": 40.0,
}  # fmt: skip


def test_the_figures_are_a_few_lines() -> None:
    assert lines(FOUND | {"against": MET}) == [
        "runs/a: 200 prompts, 1 that the scorer did not answer for, 4 answers each, temperature "
        "0.7",
        "accuracy            40.0% [33.5%, 46.9%]",
        "mean reward         0.4",
        "pass@1              40.0%",
        "pass@4              70.0%",
        "majority@4          50.0%",
        "mean length         31.2 tokens",
        "truncated           2.0%",
        "",
        "against base",
        "win rate            60.0% [53.0%, 67.0%]",
        "wins, ties, losses  100, 40, 60, 3 undecided; sign test p = 0.0019",
        "length-controlled   55.0% [47.0%, 63.0%]",
        "order decided       10.0% of the prompts",
        "its accuracy        20.0% [15.0%, 26.0%]",
        "its mean length     40.0 tokens",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format=csv", "--out=a"], "--format csv: there are alpaca-eval, arena-hard"),
        (["--format=arena-hard"], "--format arena-hard needs --out FILE"),
        (["--out=/nowhere/a.jsonl"], "--out /nowhere/a.jsonl: there is no folder /nowhere"),
    ],
)
def test_an_output_that_cannot_be_is_refused(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["eval", "smollm2-135m", *options])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == message


def test_long_work_is_counted_where_it_is_seen() -> None:
    seen, piped = io.StringIO(), io.StringIO()
    for stream, live in ((seen, True), (piped, False)):
        count = Counter(stream, live=live)
        for n in (1, 2, 3):
            count("answered", n, 3)
    assert seen.getvalue() == "\ranswered 1/3\ranswered 2/3\ranswered 3/3\n"
    assert piped.getvalue() == "answered 3/3\n"
