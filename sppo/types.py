"""What crosses a process boundary.

Shape suffixes: T tokens of one completion, P tokens of a prompt, K completions of a group.
Everything here is immutable, keyword-only and free of torch; `sppo.transport.codec` puts it on the
wire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TicketStream = Literal["train", "eval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Policy version: `n` optimizer steps since the base model, in the learner's life `epoch`."""

    epoch: str
    n: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.n}"

    @classmethod
    def parse(cls, label: str) -> Version:
        """Inverse of `str`. Raises ValueError for anything else."""
        epoch, _, n = label.rpartition(":")
        if not epoch:
            raise ValueError(f"not a version label: {label!r}")
        return cls(epoch=epoch, n=int(n))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one ticket's completions are sampled."""

    completions: int
    """K, completions per prompt."""
    temperature: float
    """0 is greedy."""
    max_tokens: int
    """Longest completion, the end-of-sequence token included."""
    seed: int
    """Seed of this ticket's random numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion that is there already."""

    token_ids: tuple[int, ...]
    text: str
    """Special tokens left out."""
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Permission to produce one group."""

    uid: str
    stream: TicketStream
    prompt_ids: tuple[int, ...]
    question: str
    """The text a scorer sees, before the chat template."""
    scorer_data: Mapping[str, Any]
    """What the scorer needs besides the text, such as the reference answer. Plain msgpack types
    only.
    """
    sampling: SamplingParams
    min_version: int
    """Oldest `n` that may begin sampling this ticket."""
    messages: tuple[tuple[str, str], ...] = ()
    """The whole prompt as (role, content), for the scorer."""
    paired: bool = False
    """Evaluations: the scorer gets the answer and `against`, or the answer twice, so that one that
    compares has something to compare.
    """
    against: Answer | None = None
    """The base model's answer, once it is known."""
    issued: float = field(default=0.0, compare=False)
    """When, seconds since 1970 by the learner's clock; 0 where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Tokens [start, end) of a completion were sampled by `version`."""

    version: Version
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Tokens sampled in one generation call, the sampled end-of-sequence token included."""

    token_ids: NDArray[np.int32]
    """[T]"""
    behavior_logprobs: NDArray[np.float32]
    """[T] nats, at the sampling temperature, as the engine reported them."""
    spans: tuple[VersionSpan, ...]
    finish_reason: Literal["stop", "length"]
    text: str = field(default="", compare=False)
    """Detokenised, special tokens left out. For the scorer; not sent to the learner."""

    def whole(self, version: Version) -> bool:
        """Whether `version` sampled it from beginning to end."""
        return all(span.version == version for span in self.spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The K completions of one prompt with their scores: the unit of queueing and of baselines."""

    gid: str
    """Names this attempt; one ticket may be attempted more than once."""
    uid: str
    """The ticket."""
    stream: TicketStream
    prompt_ids: NDArray[np.int32]
    """[P]"""
    completions: tuple[Completion, ...]
    generator: str
    """Member that sampled it."""
    rewards: NDArray[np.float32] | None = None
    """[K] scalar rewards; None if the scorer compared instead."""
    preferences: NDArray[np.float32] | None = None
    """[K, K] probability that the row's completion is preferred to the column's, NaN where the two
    were not compared; None if the scorer gave rewards.
    """
    details: tuple[Mapping[str, Any], ...] | None = None
    """[K] what the scorer said of each completion, for samples."""
    times: tuple[float, ...] = field(default=(), compare=False)
    """When its ticket was issued, leased, its completions sampled, scored, the group pushed, and
    claimed by the learner: seconds since 1970, each by its own machine's clock (`sppo.spans`).
    """

    @property
    def tokens(self) -> int:
        """Completion tokens of the whole group."""
        return sum(len(c.token_ids) for c in self.completions)

    @property
    def has_signal(self) -> bool:
        """Whether the scorer told any two completions apart."""
        if self.preferences is not None:
            known = self.preferences[~np.isnan(self.preferences)]
            return bool((known != 0.5).any())
        return self.rewards is not None and bool((self.rewards != self.rewards[0]).any())

    @property
    def unmet(self) -> int:
        """Completions that the scorer compared with none of the others, though it compares."""
        if self.preferences is None or len(self.preferences) < 2:
            return 0
        return int((np.isnan(self.preferences).sum(1) == len(self.preferences) - 1).sum())

    def only(self, at: Sequence[int]) -> Group:
        """With the completions at these positions, in order, and their scores."""
        if len(at) == len(self.completions):
            return self
        chosen = list(at)
        return replace(
            self,
            completions=tuple(self.completions[i] for i in chosen),
            rewards=None if self.rewards is None else self.rewards[chosen],
            preferences=None if self.preferences is None else self.preferences[chosen][:, chosen],
            details=None if self.details is None else tuple(self.details[i] for i in chosen),
        )

    def versions(self) -> set[Version]:
        """Every version that sampled a token of this group."""
        return {span.version for c in self.completions for span in c.spans}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One visible group in the queue: metadata only, the frame is fetched by its gid."""

    entry_id: str
    gid: str
    uid: str
    stream: TicketStream
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A ticket on loan to one generator until it is pushed, renewed or expired."""

    ticket: Ticket
    attempt: int
    """1 for the first lease of this ticket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A ticket given up after its retries."""

    uid: str
    stream: TicketStream
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A live role, as its heartbeat describes it."""

    name: str
    role: Literal["generator", "scorer", "learner"]
    life: str = ""
    """New for every process that takes the name."""
    host: str = ""
    """Name of its machine."""
    address: str = ""
    """Scorers: base URL of the service."""
    world_size: int = 1
    """Generators: ranks this engine adds to a weight-transfer group."""
    applied: str = ""
    """Generators: label of the version that the engine runs, empty before the first sync."""
    busy_s: float = 0.0
    """Seconds with work in hand since the role was ready."""
    ready_s: float = 0.0
    """Seconds since the role was ready."""
    tokens: int = 0
    """Generators: completion tokens sampled."""
    in_hand: int = 0
    """Generators: groups leased and not yet pushed. The learner: tickets out and not trained."""
    scoring: int = 0
    """Generators: how many of these are with the scorer."""
    counters: Mapping[str, float] = field(default_factory=dict)
    """What the scorer in this role's processes counts itself: of `llm-judge` calls, tokens, ..."""
    refusals: int = 0
    """Generators: attempts at groups that a scorer or the engine refused."""
    refusal: str = ""
    """Generators: uid and reason of the newest of them."""
    spent: str = ""
    """Generators: why the scorer will score nothing more; empty as long as it does."""
    ahead_s: float = 0.0
    """Seconds by which its machine's clock is ahead of the broker's, as far as it knows."""
    progress: int = 0
    """Moves as long as the role gets on with its work, or could: one that stands still has hung."""

    @property
    def where(self) -> str:
        """Its name, and its machine's where it has told it."""
        return f"{self.name} on {self.host}" if self.host else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One group for a scorer."""

    uid: str
    question: str
    """The last user message."""
    completions: Sequence[str]
    """[K] texts, special tokens left out."""
    data: Mapping[str, Any]
    """Every column of the row."""
    messages: Sequence[tuple[str, str]] = ()
    """The whole prompt as (role, content); empty where only the question is known."""
    finish_reasons: Sequence[str] = ()
    """[K] `stop`, or `length` for a completion that was cut; empty where unknown."""
    lengths: Sequence[int] = ()
    """[K] tokens; empty where unknown."""
    versions: Sequence[str] = ()
    """[K] label of the version that sampled the last token; empty where unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A scorer's answer about one group: exactly one of the two."""

    rewards: NDArray[np.float32] | None = None
    """[K]"""
    preferences: NDArray[np.float32] | None = None
    """[K, K], see `Group.preferences`."""
    details: Sequence[Mapping[str, Any]] | None = None
    """[K] what the scorer has to say of each completion, as JSON objects; nothing is trained on
    it.
    """


def digest(*parts: str) -> str:
    """A short stable name for texts: 16 hex digits of SHA-256."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]
