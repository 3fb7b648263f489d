"""What an evaluation comes to: figures over all items, and a line of JSON for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sppo.evaluation import statistics
from sppo.evaluation.judging import Item
from sppo.scorer.numbers import box, stated
from sppo.types import Answer

RIGHT = 1.0
"""The least reward of a right answer."""


def figures(items: Sequence[Item], *, k: int) -> dict[str, Any]:
    """Over the items that the scorer answered for; figures that there are not are null."""
    scored = [item for item in items if not item.error]
    rewards = [item.rewards for item in scored if item.rewards is not None]
    return {
        "n": len(scored),
        "failed": len(items) - len(scored),
        **_of_rewards(rewards),
        "pass_at": _pass_at(rewards, k),
        "majority": _majority([i for i in scored if i.rewards is not None], k),
        **_of_answers([item.ours for item in items]),
        "against": _against(scored),
    }


def _of_rewards(rewards: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The accuracy's interval is over questions: K answers to one are not independent."""
    if not rewards:
        return {"accuracy": None, "interval": None, "reward_mean": None}
    shares = [sum(r >= RIGHT for r in each) / len(each) for each in rewards]
    accuracy = sum(shares) / len(shares)
    return {
        "accuracy": accuracy,
        "interval": list(statistics.wilson(accuracy, len(shares))),
        "reward_mean": sum(sum(each) / len(each) for each in rewards) / len(rewards),
    }


def _pass_at(rewards: Sequence[Sequence[float]], k: int) -> dict[str, float] | None:
    """By k: 1, 2, 4, ... and K."""
    if not rewards or k < 2:
        return None
    tries = sorted({*(1 << i for i in range(k.bit_length()) if 1 << i <= k), k})
    right = [sum(r >= RIGHT for r in each) for each in rewards]
    return {str(t): sum(statistics.pass_at_k(k, c, t) for c in right) / len(right) for t in tries}


def _majority(items: Sequence[Item], k: int) -> float | None:
    if not items or k < 2:
        return None
    votes = [
        statistics.majority(
            [final(answer.text) for answer in item.ours], [r >= RIGHT for r in item.rewards or ()]
        )
        for item in items
    ]
    return sum(votes) / len(votes)


def final(text: str) -> str:
    """What an answer comes to: the content of its last box, else its number, else its text."""
    boxed = box(text)
    if boxed is not None:
        return "".join(boxed.split())
    number = stated(text)
    return " ".join(text.split()) if number is None else str(number)


def _of_answers(answers: Sequence[Sequence[Answer]]) -> dict[str, float]:
    every = [answer for each in answers for answer in each]
    return {
        "length_mean": sum(len(a.token_ids) for a in every) / len(every),
        "truncated_share": sum(a.finish_reason == "length" for a in every) / len(every),
    }


def _against(items: Sequence[Item]) -> dict[str, Any] | None:
    """How often ours won."""
    met = [item for item in items if item.theirs]
    if not met:
        return None
    preferences = [item.preference for item in met]
    found = statistics.win_rate(preferences)
    longer = [_length(item.ours) - _length(item.theirs) for item in met]
    controlled = statistics.length_controlled(preferences, longer)
    theirs = _of_rewards([item.their_rewards for item in met if item.their_rewards is not None])
    return {
        "win_rate": found and found.rate,
        "interval": found and [found.low, found.high],
        "wins": found and found.wins,
        "ties": found and found.ties,
        "losses": found and found.losses,
        "p": found and found.p,
        "n": found.n if found else 0,
        "unread": len(met) - (found.n if found else 0),
        "length_controlled": controlled and controlled[0],
        "length_controlled_interval": controlled and list(controlled[1:]),
        "order_matters_share": sum(item.order_matters for item in met) / len(met),
        "accuracy": theirs["accuracy"],
        "interval_of_accuracy": theirs["interval"],
        "reward_mean": theirs["reward_mean"],
        **_of_answers([item.theirs for item in met]),
    }


def _length(answers: Sequence[Answer]) -> float:
    return sum(len(answer.token_ids) for answer in answers) / len(answers)


def row(item: Item) -> dict[str, Any]:
    """An item for a file, which `formats.read` reads as answers."""
    told: dict[str, Any] = {
        "uid": item.ticket.uid,
        "question": item.ticket.question,
        "messages": [{"role": role, "content": text} for role, text in item.ticket.messages],
        "completions": [answer.text for answer in item.ours],
        "lengths": [len(answer.token_ids) for answer in item.ours],
        "finish_reasons": [answer.finish_reason for answer in item.ours],
        "rewards": item.rewards,
        "details": item.details or None,
    }
    if item.theirs:
        told |= {
            "against": [answer.text for answer in item.theirs],
            "against_rewards": item.their_rewards,
            "preference": None if item.preference != item.preference else item.preference,
        }
    return told | ({"error": item.error} if item.error else {})
