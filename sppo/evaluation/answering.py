"""Answers of a model to tickets, sampled by the engine that generators use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sppo import stop
from sppo.config import RunConfig
from sppo.errors import RoleDiedError
from sppo.generators import engine as engines
from sppo.generators.engine import Engine
from sppo.types import Answer, Completion, SamplingParams, Ticket, Version

SEED_STRIDE = 1_000_003
VERSION = Version(epoch="eval", n=0)


def answer(
    config: RunConfig, path: str, tickets: Sequence[Ticket], sampling: SamplingParams,
    done: Callable[[int], None], make: Callable[[RunConfig, str], Any] = engines.make,
) -> list[list[Answer]]:  # fmt: skip
    """For each ticket K answers of the model in a folder; `done` is told how many tickets are.

    What is specific to the processors there are is decided in `config` (`compute.decided`). Ctrl-C
    ends the engine and leaves. Called by the main thread. Raises RoleDiedError for an engine that
    does not come up within `generator.start_timeout_s`.
    """
    return asyncio.run(_answer(make(config, path), config, tickets, sampling, done))


async def _answer(
    engine: Engine, config: RunConfig, tickets: Sequence[Ticket], sampling: SamplingParams,
    done: Callable[[int], None],
) -> list[list[Answer]]:  # fmt: skip
    found: dict[int, list[Answer]] = {}
    room = asyncio.Semaphore(config.generator.max_groups)

    async def one(number: int, ticket: Ticket) -> None:
        async with room:
            own = replace(sampling, seed=(sampling.seed * SEED_STRIDE + number) % 2**31)
            completions = await engine.sample(ticket.prompt_ids, own, f"eval-{number}")
        found[number] = [_answer_of(completion) for completion in completions]
        done(len(found))

    try:
        # An engine may load its model without ever giving the event loop a turn.
        with stop.within(config.generator.start_timeout_s, _late(config)):
            await engine.start()
        await engine.label(VERSION)
        async with asyncio.TaskGroup() as tasks:
            for number, ticket in enumerate(tickets):
                tasks.create_task(one(number, ticket))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await engine.close()
    return [found[number] for number in range(len(tickets))]


def _late(config: RunConfig) -> RoleDiedError:
    return RoleDiedError(
        f"generator.engine = {config.generator.engine!r}: it did not come up within "
        f"generator.start_timeout_s = {config.generator.start_timeout_s:g} s; raise that for a "
        "model that takes longer to load"
    )


def _answer_of(completion: Completion) -> Answer:
    return Answer(
        token_ids=tuple(completion.token_ids.tolist()),
        text=completion.text,
        finish_reason=completion.finish_reason,
    )
