"""A user's scorers, as processes of their own import them: only the standard library, so that these
start fast.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def by_length(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    return [float(len(c)) for c in completions]


def rock_paper_scissors(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[list[float]]:
    """A comparison of which no reward is the cause."""
    beats = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}
    return [[0.5 if a == b else float((a, b) in beats) for b in completions] for a in completions]


def in_one_order(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[list[float]]:
    """A judge that favours what it reads first, and has no answer for a single completion."""
    return [[0.5 if a is b else 0.6 for b in completions] for a in completions]


def never_single(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[list[float]]:
    return [[0.5] * len(completions) for _ in completions]


def never_alone(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    lengths = [len(text) for text in completions]
    return [n / (max(lengths) - min(lengths)) for n in lengths]


def refuses(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    raise RuntimeError("out of\nopinions")


def misses_a_column(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[float]:
    return [float(data["solution"] in text) for text in completions]


def misspelt(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    return scroe(completions)  # type: ignore[name-defined,no-any-return]  # noqa: F821


def one_short(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    return [1.0] * (len(completions) - 1)


def not_a_number(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    return [float("nan")] * len(completions)


def texts(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[Any]:
    return ["1.0"] * len(completions)


def too_large(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[Any]:
    return [10**400] * len(completions)


def out_of_float32(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[float]:
    return [1e39] * len(completions)


def verdicts(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> Any:
    return (text == data["answer"] for text in completions)  # a generator of bools


def alarmed(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """What graders do that bring a time-out: possible in a main thread only."""

    def late(*_: object) -> None:
        raise TimeoutError("parsed for too long")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        return [float(threading.current_thread() is threading.main_thread())] * len(completions)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


async def awaited(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[float]:
    """A judge elsewhere: it takes a while, and never answers for some."""
    await asyncio.sleep(3600 if "never" in completions else 0.2)
    if "die" in completions:
        os._exit(5)
    return by_length(question, completions, data)


async def blocks(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Called async and is not: nothing else is awaited meanwhile."""
    time.sleep(3600 if "never" in completions else 0.1)
    return by_length(question, completions, data)


class Judge:
    """An object that is called."""

    async def __call__(
        self, question: str, completions: Sequence[str], data: Mapping[str, Any]
    ) -> list[float]:
        await asyncio.sleep(0)
        return by_length(question, completions, data)


judge = Judge()


def decorated(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> Any:
    """Does not look async."""
    return judge(question, completions, data)


def waits(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    time.sleep(0.1)
    return [float(os.getpid())] * len(completions)


def runs_code(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Runs what the model wrote, as a first attempt would."""
    for text in completions:
        exec(text, {"os": os, "sys": sys, "time": time, "subprocess": subprocess})
    return [1.0] * len(completions)


loaded_at: list[float] = []


def loads_first(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Its first call takes longer than any other may."""
    if not loaded_at:
        time.sleep(1.0)
        loaded_at.append(time.monotonic())
    if "loop" in completions:
        while True:
            pass
    return [1.0] * len(completions)


def loops_once(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Hangs in the first call of the first process alone."""
    mark = Path(data["mark"])
    if not mark.exists():
        mark.touch()
        while True:
            pass
    return [1.0] * len(completions)


def seen(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """Keeps a record of its calls."""
    with Path(data["log"]).open("a") as file:
        file.write(
            f"{len(completions)} {len(set(completions))} {threading.current_thread().name} {data}\n"
        )
    return [0.0] * len(completions)


class _Model:
    """Loaded by the first of many calls, while the others wait for it."""

    loading: asyncio.Task[None] | None = None


async def loads_once_for_all(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[float]:
    if completions[0] == "bad":
        raise ValueError("no such language")
    if _Model.loading is None:
        _Model.loading = asyncio.ensure_future(asyncio.sleep(1.5))
    await _Model.loading
    await asyncio.sleep(0.1 * len(completions))
    return [1.0] * len(completions)


def of_everything(request: Any) -> list[float]:
    """Sees what a request holds."""
    assert request.messages == (("system", "be brief"), ("user", request.question))
    assert list(request.versions) == ["e:1"] * len(request.completions)
    pairs = zip(request.finish_reasons, request.lengths, strict=True)
    return [float(length) if reason == "stop" else 0.0 for reason, length in pairs]


def partly(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> Any:
    """Compares neighbours alone."""
    k = len(completions)
    return [
        [0.5 if i == j else 0.75 if j == i + 1 else 0.25 if i == j + 1 else None for j in range(k)]
        for i in range(k)
    ]


class Ranker:
    """With options, and a record of what is asked of it."""

    def __init__(self, *, log: str, factor: float = 1.0) -> None:
        self._log = Path(log)
        self._factor = factor

    def setup(self) -> None:
        self._log.write_text("setup\n")

    def score(self, request: Any) -> Any:
        rewards = [self._factor * len(text) for text in request.completions]
        return {"rewards": rewards, "details": [{"uid": request.uid}] * len(rewards)}

    def close(self) -> None:
        with self._log.open("a") as file:
            file.write("close\n")


class Batched:
    """Answers with the size of its batch."""

    batch = 4

    def score(self, requests: list[Any]) -> list[list[float]]:
        if any("bad" in request.completions for request in requests):
            raise ValueError("bad")
        return [[float(len(requests))] * len(request.completions) for request in requests]


class AsyncBatched(Batched):
    async def setup(self) -> None:
        self.ready = asyncio.get_running_loop()

    async def score(self, requests: list[Any]) -> list[list[float]]:  # type: ignore[override]
        assert self.ready is asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        return super().score(requests)


async def never_works(
    question: str, completions: Sequence[str], data: Mapping[str, Any]
) -> list[float]:
    if "hang" in completions:
        await asyncio.sleep(3600)
    raise RuntimeError("no")


class KeepsTime:
    """Longer than its limit, with deadlines of its own; one that blocks has hung all the same."""

    keeps_time = True

    async def score(self, request: Any) -> list[float]:
        if "block" in request.completions:
            time.sleep(60)
        await asyncio.sleep(1.0)
        return [1.0] * len(request.completions)


def spent(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    from sppo.errors import ScorerRefused, ScorerSpent

    raise (ScorerSpent if "spent" in completions else ScorerRefused)("words of ours")


class Counts:
    """Counts its calls, and dies when it is told to."""

    def __init__(self) -> None:
        self.calls = 0

    def counters(self) -> dict[str, int]:
        return {"calls": self.calls}

    def score(self, request: Any) -> list[float]:
        if "die" in request.completions:
            os._exit(1)
        self.calls += 1
        return [1.0] * len(request.completions)
