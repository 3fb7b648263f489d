"""What a scorer says of answers, and of answers beside another model's."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sppo.errors import ConfigError, ScorerError
from sppo.scorer.base import Scorer
from sppo.scorer.details import bounded
from sppo.types import Answer, ScoreRequest, Scores, Ticket

AT_ONCE = 32


@dataclass(slots=True, kw_only=True)
class Item:
    """One question with what is known of its answers."""

    ticket: Ticket
    ours: Sequence[Answer]
    """[K]"""
    theirs: Sequence[Answer] = ()
    """Another model's, where there is one."""
    rewards: list[float] | None = None
    """[K], where the scorer gives them."""
    their_rewards: list[float] | None = None
    preference: float = math.nan
    """Probability that ours is preferred, mean over pairs of answers and both orders."""
    order_matters: bool = False
    """Whether the scorer preferred the first, or the second, in both orders of a pair."""
    details: list[Any] = field(default_factory=list)
    error: str = ""
    """Why the scorer did not answer."""


def judge(items: Sequence[Item], scorer: Scorer, done: Callable[[int], None]) -> bool:
    """Have every item scored; returns whether the scorer compared.

    Raises ConfigError for a scorer that compares where there is nobody to compare with, ScorerError
    if it answered for no item.
    """
    return asyncio.run(_judge(items, scorer, done))


async def _judge(items: Sequence[Item], scorer: Scorer, done: Callable[[int], None]) -> bool:
    room, finished = asyncio.Semaphore(AT_ONCE), 0
    try:
        compares = await _compares(items, scorer)

        async def one(item: Item) -> None:
            nonlocal finished
            async with room:
                try:
                    await (_compare(item, scorer) if compares else _reward(item, scorer))
                except ScorerError as error:
                    item.error = str(error)
            finished += 1
            done(finished)

        async with asyncio.TaskGroup() as tasks:
            for item in items:
                tasks.create_task(one(item))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await scorer.close()
    if all(item.error for item in items):
        raise ScorerError(f"the scorer answered for none of {len(items)}: {items[-1].error}")
    return compares


async def _compares(items: Sequence[Item], scorer: Scorer) -> bool:
    """By a pair of the first item that it answers for."""
    error: ScorerError | None = None
    for item in items[:3]:
        beside = item.theirs[0] if item.theirs else item.ours[-1]
        try:
            scores = await scorer.score(_request(item.ticket, [item.ours[0], beside]))
        except ScorerError as refusal:
            error = refusal
            continue
        if scores.preferences is None:
            return False
        if not item.theirs:
            raise ConfigError(
                "the scorer compares, and there is nobody to compare with: add --against base, a "
                "checkpoint or a file of answers, or name a scorer of rewards with --scorer"
            )
        return True
    assert error is not None
    raise error


async def _reward(item: Item, scorer: Scorer) -> None:
    ours = await scorer.score(_request(item.ticket, item.ours))
    item.rewards = _rewards(ours)
    item.details = [dict(each) for each in bounded(ours.details) or ()]
    if item.theirs:
        item.their_rewards = _rewards(await scorer.score(_request(item.ticket, item.theirs)))
        wins = [(a > b) + 0.5 * (a == b) for a in item.rewards for b in item.their_rewards]
        item.preference = sum(wins) / len(wins)


def _rewards(scores: Scores) -> list[float]:
    if scores.rewards is None:
        raise ScorerError("the scorer gave preferences, and rewards for another group")
    return [float(reward) for reward in scores.rewards]


async def _compare(item: Item, scorer: Scorer) -> None:
    """Each of ours with one of theirs, in both orders."""
    found = []
    for i in range(max(len(item.ours), len(item.theirs))):
        ours, theirs = item.ours[i % len(item.ours)], item.theirs[i % len(item.theirs)]
        first = await scorer.score(_request(item.ticket, [ours, theirs]))
        second = await scorer.score(_request(item.ticket, [theirs, ours]))
        if first.preferences is None or second.preferences is None:
            raise ScorerError("the scorer gave rewards, and preferences for another group")
        chances = float(first.preferences[0, 1]), float(second.preferences[1, 0])
        item.order_matters |= (chances[0] - 0.5) * (chances[1] - 0.5) < 0
        item.details += [list(bounded(each.details) or ()) for each in (first, second)]
        known = [p for p in chances if not math.isnan(p)]
        found += [sum(known) / len(known)] if known else []
    item.preference = sum(found) / len(found) if found else math.nan


def _request(ticket: Ticket, answers: Sequence[Answer]) -> ScoreRequest:
    return ScoreRequest(
        uid=ticket.uid,
        question=ticket.question,
        completions=[answer.text for answer in answers],
        data=ticket.scorer_data,
        messages=ticket.messages,
        finish_reasons=[answer.finish_reason for answer in answers],
        lengths=[len(answer.token_ids) for answer in answers],
    )
