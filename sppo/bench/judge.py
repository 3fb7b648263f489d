"""A judge against labels: how often it agrees, and what moves it that should not.

Each pair is asked about in both orders, as training does. A verdict is a tie where the mean
probability of both is within `TIE` of 1/2.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sppo import strict_json
from sppo.config import JudgeConfig, utf8
from sppo.errors import ConfigError, ScorerError
from sppo.evaluation.statistics import wilson
from sppo.scorer.judge.scorer import LlmJudge
from sppo.scorer.judge.store import Verdict
from sppo.types import ScoreRequest

TIE = 0.05
EVERY = 100
Label = Literal["a", "b", "tie"]
FORMS = (
    '{"prompt": "...", "a": "...", "b": "...", "label": "a"} with label a, b or tie, or '
    '{"prompt": "...", "answers": ["...", ...], "scores": [1, 0.5, ...]}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one prompt, and which is the better one."""

    prompt: str
    a: str
    b: str
    label: Label
    row: Mapping[str, Any] = field(default_factory=dict)
    """The whole line, for a rubric that names its columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the judge says of one pair; NaN where an answer cannot be read."""

    pair: Pair
    shown_first: float
    """Probability that `a` is better, with `a` shown first."""
    shown_second: float
    """The same, with `a` shown second."""

    @property
    def mean(self) -> float:
        return (self.shown_first + self.shown_second) / 2

    @property
    def verdict(self) -> Label:
        return _label(self.mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures of one judge on one file. Shares are null where nothing counts towards them."""

    pairs: int
    read: int
    """Pairs of which both answers could be read: all shares are of these."""
    agreement: float | None
    """Share of verdicts that are the label."""
    agreement_low: float | None
    agreement_high: float | None
    """Its interval at 95 % (Wilson)."""
    agreement_decided: float | None
    """The same where neither verdict nor label is a tie, ..."""
    decided: int
    """... which are so many pairs."""
    flips: float | None
    """Position bias: share of verdicts that are another one in the other order."""
    first_wins: float | None
    """Mean probability of the answer shown first; 1/2 without a bias."""
    longer_wins: float | None
    """Length bias: share of verdicts for the longer answer, ties half, ..."""
    longer_labelled: float | None
    """... and of labels, of the same pairs."""
    triples: int
    """Three answers to one prompt of which each pair was judged."""
    intransitive: int
    """Of these: A beats B, B beats C, C beats A."""
    answers: int
    """Two for each pair, of which equal ones are asked once."""
    unreadable: int
    failed: int
    """Calls without an answer after all tries."""
    calls: int
    cached: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None
    """By scorer.judge.prices; null without."""
    seconds: float


def read(path: Path) -> list[Pair]:
    """The pairs of a labelled file. Raises ConfigError with the line that is wrong."""
    try:
        lines = utf8(path.read_bytes(), str(path)).split("\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    found: list[Pair] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            found += _pairs(line, f"{path}:{number}")
    if not found:
        raise ConfigError(f"{path} holds no pairs; a line is {FORMS}")
    return found


def measure(settings: JudgeConfig, pairs: Sequence[Pair], say: Callable[[str], None]) -> Measured:
    """Ask about every pair in both orders. Raises ConfigError for a judge that cannot compare,
    ScorerError for one that cannot be used.
    """
    if settings.mode != "pairwise":
        raise ConfigError(f"scorer.judge.mode = {settings.mode!r}: this bench is of comparisons")
    return asyncio.run(_measure(settings, pairs, say))


async def _measure(
    settings: JudgeConfig, pairs: Sequence[Pair], say: Callable[[str], None]
) -> Measured:
    options = settings.model_dump(mode="json") | {"api_key": settings.api_key.get_secret_value()}
    judge = LlmJudge(**options)
    await judge.setup()
    begun, failed = time.monotonic(), list[str]()

    async def ask(request: ScoreRequest, first: str, second: str) -> float:
        answer = await judge.first_wins(request, first, second)
        if isinstance(answer, Verdict):
            return answer.value
        failed.append(str(answer))
        return math.nan

    async def one(number: int, pair: Pair) -> Judged:
        request = ScoreRequest(
            uid=f"bench-{number}", question=pair.prompt, completions=(pair.a, pair.b),
            data=pair.row,
        )  # fmt: skip
        forward, backward = await asyncio.gather(
            ask(request, pair.a, pair.b), ask(request, pair.b, pair.a)
        )
        return Judged(pair=pair, shown_first=forward, shown_second=1 - backward)

    try:
        judged: list[Judged] = []
        for at in range(0, len(pairs), EVERY):
            part = enumerate(pairs[at : at + EVERY], at)
            judged += await asyncio.gather(*(one(number, pair) for number, pair in part))
            say(f"{len(judged)} of {len(pairs)} pairs")
        seconds, counts = time.monotonic() - begun, judge.counts
    finally:
        await judge.close()
    if failed and len(failed) == 2 * len(pairs):
        raise ScorerError(failed[-1])
    spent = (counts.prompt_tokens, counts.answer_tokens)
    cost = sum(n * price for n, price in zip(spent, settings.prices, strict=True)) / 1e6
    return Measured(
        **figures(judged), failed=len(failed), unreadable=counts.unreadable, calls=counts.calls,
        cached=counts.cached, prompt_tokens=spent[0], answer_tokens=spent[1],
        cost=cost if any(settings.prices) else None, seconds=round(seconds, 3),
    )  # fmt: skip


def figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """What the answers say of the judge."""
    there = [each for each in judged if not math.isnan(each.mean)]
    right = [each.verdict == each.pair.label for each in there]
    agreement = _mean(right)
    interval = (None, None) if agreement is None else wilson(agreement, len(there))
    decided = [each for each in there if "tie" not in (each.verdict, each.pair.label)]
    uneven = [each for each in there if len(each.pair.a) != len(each.pair.b)]
    triples, intransitive = _triples(there)
    return {
        "pairs": len(judged),
        "read": len(there),
        "agreement": agreement,
        "agreement_low": interval[0],
        "agreement_high": interval[1],
        "agreement_decided": _mean([each.verdict == each.pair.label for each in decided]),
        "decided": len(decided),
        "flips": _mean([_label(each.shown_first) != _label(each.shown_second) for each in there]),
        "first_wins": _mean([(each.shown_first + 1 - each.shown_second) / 2 for each in there]),
        "longer_wins": _mean([_for_longer(each.verdict, each.pair) for each in uneven]),
        "longer_labelled": _mean([_for_longer(each.pair.label, each.pair) for each in uneven]),
        "triples": triples,
        "intransitive": intransitive,
        "answers": 2 * len(judged),
    }


def _triples(judged: Sequence[Judged]) -> tuple[int, int]:
    """Triples of answers to one prompt, and those that go round in a circle."""
    beats: dict[str, dict[tuple[str, str], bool]] = defaultdict(dict)
    for each in judged:
        pair = each.pair
        beats[pair.prompt][pair.a, pair.b] = each.verdict == "a"
        beats[pair.prompt][pair.b, pair.a] = each.verdict == "b"
    triples = circles = 0
    for won in beats.values():
        texts = sorted({text for names in won for text in names})
        for x, y, z in itertools.combinations(texts, 3):
            if all(names in won for names in ((x, y), (y, z), (z, x))):
                triples += 1
                circles += (won[x, y] and won[y, z] and won[z, x]) or (
                    won[y, x] and won[z, y] and won[x, z]
                )
    return triples, circles


def _pairs(line: str, where: str) -> list[Pair]:
    try:
        row = strict_json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: no JSON: {error}") from error
    holds = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise ConfigError(f"{where}: a line is {FORMS}; this one holds {holds}")
    prompt = row["prompt"]
    answers, scores = row.get("answers"), row.get("scores")
    if isinstance(answers, list) and isinstance(scores, list) and len(answers) == len(scores) > 1:
        if not all(isinstance(text, str) for text in answers) or not all(map(_number, scores)):
            raise ConfigError(f"{where}: answers are texts and scores are numbers")
        both = itertools.combinations(zip(answers, scores, strict=True), 2)
        return [
            Pair(prompt=prompt, a=a, b=b, label=_better(x, y), row=row) for (a, x), (b, y) in both
        ]
    texts, label = (row.get("a"), row.get("b")), row.get("label")
    if not all(isinstance(text, str) for text in texts) or label not in ("a", "b", "tie"):
        raise ConfigError(f"{where}: a line is {FORMS}; this one holds {holds}")
    return [Pair(prompt=prompt, a=row["a"], b=row["b"], label=label, row=row)]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _better(x: float, y: float) -> Label:
    return "tie" if x == y else "a" if x > y else "b"


def _label(probability: float) -> Label:
    return "tie" if abs(probability - 0.5) <= TIE else "a" if probability > 0.5 else "b"


def _for_longer(label: Label, pair: Pair) -> float:
    longer = "a" if len(pair.a) > len(pair.b) else "b"
    return 0.5 if label == "tie" else float(label == longer)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def table(found: Measured) -> list[str]:
    """The figures in words."""
    cost = "" if found.cost is None else f", cost {found.cost:.4g}"
    rate = found.calls / found.seconds if found.seconds else 0.0
    return [
        f"agreement      {_shown(found.agreement)} of {found.read} pairs "
        f"({_shown(found.agreement_low)} to {_shown(found.agreement_high)}), "
        f"{_shown(found.agreement_decided)} where neither says tie",
        f"position bias  {_shown(found.flips)} of the verdicts change with the order; the first "
        f"answer wins {_shown(found.first_wins)}",
        f"length bias    the longer answer wins {_shown(found.longer_wins)} of the verdicts and "
        f"{_shown(found.longer_labelled)} of the labels",
        f"triples        {found.intransitive} of {found.triples} are intransitive",
        f"not to be read {found.unreadable} of {found.answers} answers; {found.failed} calls "
        "failed",
        f"calls          {found.calls}, and {found.cached} answers kept; {found.prompt_tokens} + "
        f"{found.answer_tokens} tokens{cost}",
        f"seconds        {found.seconds:.1f}, {rate:.1f} calls a second",
    ]


def complaint(found: Measured, settings: JudgeConfig) -> str:
    """What is to be said of a judge that is right less often than a coin; empty of others."""
    right = found.agreement_decided
    if right is None or wilson(right, found.decided)[1] >= 0.5:
        return ""
    return (
        f"scorer.judge.model = {settings.model!r} says the opposite of the labels: right of "
        f"{right:.3f} of {found.decided} pairs without a tie, where a coin is right of half; have "
        "scorer.judge.rubric ask for the better answer, by the letter under which it is shown, or "
        "turn the labels round"
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def as_json(found: Measured) -> str:
    """One JSON object."""
    from dataclasses import asdict

    return json.dumps(asdict(found))
