"""The record of an evaluation inside a run, and how it is said in one line.

step               optimizer steps of the model that answered
accuracy           share of rewards of at least 1; null where the scorer compared
reward_mean        mean reward; null where the scorer compared
win_rate           mean probability that the answer is preferred to the base model's, ties as
                   1/2; null where the scorer gave rewards
interval           95 % interval of accuracy or win rate (`statistics.wilson`)
wins, ties, losses where the scorer compared
p                  of the sign test over wins and losses, where the scorer compared
n, dead            answers that count; tickets that were given up
unread             comparisons that the scorer could not decide, where it compared
length_mean        tokens; `base_length_mean` those of the base model's answers, where compared
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sppo.evaluation import statistics
from sppo.types import Group


def of_groups(step: int, groups: Sequence[Group], *, dead: int) -> dict[str, Any] | None:
    """From groups of one answer with its reward, or of the answer and the base model's with a
    matrix. None if nothing was compared.
    """
    compared = [g for g in groups if g.preferences is not None]
    if not compared:
        return _rewarded(step, groups, dead)
    chances = [float(g.preferences[0, 1]) for g in compared if g.preferences is not None]
    found = statistics.win_rate(chances)
    if found is None:
        return None
    return {
        "step": step,
        "accuracy": None,
        "reward_mean": None,
        "win_rate": found.rate,
        "interval": [found.low, found.high],
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
        "p": found.p,
        "n": found.n,
        "dead": dead,
        "unread": len(compared) - found.n,
        "length_mean": _length(compared, 0),
        "base_length_mean": _length(compared, 1),
    }


def _rewarded(step: int, groups: Sequence[Group], dead: int) -> dict[str, Any]:
    rewards = [float(g.rewards[0]) for g in groups if g.rewards is not None]
    accuracy = sum(r >= 1.0 for r in rewards) / len(rewards)
    return {
        "step": step,
        "accuracy": accuracy,
        "reward_mean": sum(rewards) / len(rewards),
        "win_rate": None,
        "interval": list(statistics.wilson(accuracy, len(rewards))),
        "n": len(rewards),
        "dead": dead,
        "length_mean": _length(groups, 0),
    }


def _length(groups: Sequence[Group], at: int) -> float:
    return sum(len(g.completions[at].token_ids) for g in groups) / len(groups)


def describe(record: Mapping[str, Any]) -> str:
    """`held-out accuracy after step 20: 0.400 of 200 [0.335, 0.469]`."""
    wins = record.get("win_rate")
    what = "held-out accuracy" if wins is None else "held-out win rate against the base model"
    value = record["accuracy"] if wins is None else wins
    line = f"{what} after step {record['step']}: {value:.3f} of {record['n']}"
    interval = record.get("interval")
    return f"{line} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else line


def short(record: Mapping[str, Any]) -> str:
    """For the line of a step: `held-out 0.400`, or `wins 0.612 [0.543, 0.677]`; empty without a
    record.
    """
    if (wins := record.get("win_rate")) is not None:
        low, high = record["interval"]
        return f"wins {wins:.3f} [{low:.3f}, {high:.3f}]"
    accuracy = record.get("accuracy")
    return "" if accuracy is None else f"held-out {accuracy:.3f}"
