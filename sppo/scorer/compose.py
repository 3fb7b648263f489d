"""`compose`: a weighted sum of other scorers, with a length penalty and a reward for a format."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sppo.errors import ConfigError, ScorerRefused
from sppo.scorer import base, calls
from sppo.scorer.calls import OptionError, Request

TOLERANCE = 1e-6
"""How far from 1 the weights of parts that compare may sum up to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One scorer of the sum."""

    label: str
    """For details: the name, numbered where two have the same."""
    name: str
    weight: float
    options: Mapping[str, Any]


class Compose:
    """Sums what its parts say of a group.

    Parts give rewards, all of them, or preferences, all of them: then the weights sum to 1, a pair
    that one part has not compared is not compared, and there are no rewards to add. Parts are
    scorers of ours by name, or a user's own; an async one waits beside the others.
    """

    def __init__(
        self,
        *,
        parts: list[dict[str, Any]],
        length_penalty: float = 0.0,
        format: str = "",
        format_reward: float = 1.0,
    ) -> None:
        """`length_penalty` is taken off for each token; `format_reward` is added where the regular
        expression `format` matches the whole completion.

        Raises OptionError for parts that cannot be. Nothing is loaded, and of a user's own nothing
        is imported.
        """
        self._parts = _parts(parts)
        self._length_penalty = length_penalty
        self._format_reward = format_reward
        try:
            self._format = re.compile(format, re.DOTALL) if format else None
        except re.error as error:
            raise OptionError(f"scorer.options.format = {format!r}: {error}") from error
        self._loaded: list[calls.Loaded] | None = None

    @property
    def score(self) -> Callable[[Any], Any]:
        """Async if one of the parts is, which are imported for it."""
        if self._loaded is None:
            self._loaded = [_load(part) for part in self._parts]
        return self._wait if any(part.concurrent for part in self._loaded) else self._now

    @property
    def keeps_time(self) -> bool:
        """Whether one of the parts has deadlines of its own."""
        return any(part.keeps_time for part in self._loaded or ())

    async def setup(self) -> None:
        """Have every part load what it needs."""
        for part in self._loaded or ():
            await _awaited(part.setup() if part.setup else None)

    async def close(self) -> None:
        for part in self._loaded or ():
            await _awaited(part.close() if part.close else None)

    @property
    def counters(self) -> Callable[[], dict[str, float]] | None:
        """What the parts count, added up; None if none of them does."""
        parts = [part.counters for part in self._loaded or () if part.counters]

        def added() -> dict[str, float]:
            found: dict[str, float] = {}
            for each in parts:
                for name, n in each().items():
                    found[name] = found.get(name, 0) + n
            return found

        return added if parts else None

    def _now(self, request: Request) -> dict[str, Any]:
        return self._sum(request, [part.call([request])[0] for part in self._loaded or ()])

    async def _wait(self, request: Request) -> dict[str, Any]:
        asked = [_awaited(part.call([request])) for part in self._loaded or ()]
        return self._sum(request, [found[0] for found in await asyncio.gather(*asked)])

    def _sum(self, request: Request, replies: Sequence[Any]) -> dict[str, Any]:
        k = len(request.completions)
        kinds: list[str] = []
        values: list[Any] = []
        details: list[dict[str, Any]] = [{} for _ in range(k)]
        for part, reply in zip(self._parts, replies, strict=True):
            scores = base.checked(part.name, request, reply)  # type: ignore[arg-type]
            compares = scores.preferences is not None
            kinds.append("preferences" if compares else "rewards")
            found = scores.rewards if scores.preferences is None else scores.preferences
            assert found is not None
            values.append(found.tolist())
            for i, said in enumerate(details):
                own = {} if compares else {"reward": values[-1][i]}
                said[part.label] = {**own, **(scores.details[i] if scores.details else {})}
        if "preferences" not in kinds:
            return {"rewards": self._rewards(request, values, details), "details": details}
        self._check_preferences(kinds)
        weights = [part.weight for part in self._parts]
        return {
            "preferences": [
                [
                    sum(w * value[i][j] for w, value in zip(weights, values, strict=True))
                    for j in range(k)
                ]
                for i in range(k)
            ],
            "details": details,
        }

    def _rewards(
        self, request: Request, values: Sequence[Sequence[float]], details: list[dict[str, Any]]
    ) -> list[float]:
        weights = [part.weight for part in self._parts]
        total = [
            sum(w * x for w, x in zip(weights, column, strict=True))
            for column in zip(*values, strict=True)
        ]
        if self._format:
            for i, text in enumerate(request.completions):
                fits = bool(self._format.fullmatch(text))
                total[i] += self._format_reward * fits
                details[i]["format"] = fits
        if self._length_penalty:
            if len(request.lengths) != len(total):
                raise ValueError("scorer.options.length_penalty: the lengths are not known")
            total = [
                x - self._length_penalty * n for x, n in zip(total, request.lengths, strict=True)
            ]
        return total

    def _check_preferences(self, kinds: Sequence[str]) -> None:
        """Raises ScorerRefused for what cannot be summed, whatever the completions."""
        if len(set(kinds)) > 1:
            said = ", ".join(f"{p.name} gives {k}" for p, k in zip(self._parts, kinds, strict=True))
            raise ScorerRefused(f"scorer.options.parts: {said}; these have no sum")
        total = math.fsum(part.weight for part in self._parts)
        if abs(total - 1) > TOLERANCE:
            raise ScorerRefused(
                f"scorer.options.parts: the weights of scorers that compare sum to 1, not {total:g}"
            )
        if self._format or self._length_penalty:
            raise ScorerRefused(
                "scorer.options: format and length_penalty are rewards, and the parts compare"
            )


def _parts(given: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Raises OptionError naming what is wrong with a part."""
    if not given:
        raise OptionError("scorer.options.parts = []: name at least one scorer")
    found: list[Part] = []
    for i, table in enumerate(given):
        where = f"scorer.options.parts[{i}]"
        try:
            entry = calls.make("compose", _Entry, table)
            base.check_options(entry.name, entry.options)
        except (OptionError, ConfigError) as error:
            inside = where if isinstance(error, OptionError) else f"{where}.options"
            told = str(error).replace("scorer.options", inside)
            raise OptionError(told.replace("scorer.name", f"{where}.name")) from error
        names = [part.name for part in found]
        label = entry.name if entry.name not in names else f"{entry.name} {i + 1}"
        found.append(Part(label=label, name=entry.name, weight=entry.weight, options=entry.options))
    return found


class _Entry:
    """What stands in [[scorer.options.parts]]."""

    def __init__(
        self, *, name: str, weight: float = 1.0, options: dict[str, Any] | None = None
    ) -> None:
        self.name = name
        self.weight = weight
        self.options = options or {}


def _load(part: Part) -> calls.Loaded:
    found = base.SCORERS.get(part.name, part.name)
    if isinstance(found, str):
        return calls.load(part.name, found, part.options)
    rule = found
    return calls.Loaded(
        call=lambda requests: [
            rule(each.question, list(each.completions), each.data) for each in requests
        ],
        concurrent=False,
        batch=1,
        file="",
    )


async def _awaited(reply: Any) -> Any:
    return await reply if inspect.isawaitable(reply) else reply
