"""The plan of faults that a seed gives.

kill        SIGKILL to the role's process
stop        SIGSTOP for a few seconds, or for so long that the role is taken for hung
delay       every piece between the role and the broker waits 0.2 s
partition   nothing passes between the role and the broker
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sppo.config import RunConfig

Kind = Literal["kill", "stop", "delay", "partition"]

KINDS: tuple[Kind, ...] = ("kill", "stop", "delay", "partition")
SHORT_STOP_S = (2.0, 5.0)
LONG_STOP_S = 25.0
DISTURBANCE_S = (4.0, 12.0)
OVERRIDES = ("launch.max_restarts=1000",)
"""Of a run that is hurt on purpose: it must not end because of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of the plan."""

    at_s: float
    """Seconds after the first optimizer step."""
    kind: Kind
    role: str
    seconds: float = 0.0
    """How long it lasts; 0 for a kill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a fault led to."""

    fault: Fault
    restarted: bool
    recovery_s: float | None
    """Seconds until the role worked again: from a kill, or a fault that led to a restart, the
    start-up of its engine apart; from the end of one that led to none. None: it never did.
    """
    engine_start_s: float = 0.0
    run_ended: bool = False
    """The run had ended before that could show."""
    began: float = 0.0
    """Seconds since 1970 at which the fault was inflicted: later than planned where the one before
    took long.
    """


def plan(
    seed: int, minutes: float, every_s: float, roles: Sequence[str], kinds: Sequence[Kind]
) -> list[Fault]:
    """A kill every `every_s`, each role in turn, and half-way between two kills one of the other
    kinds.
    """
    rng = random.Random(seed)
    faults: list[Fault] = []
    others = [k for k in kinds if k != "kill"]
    waiting: tuple[list[str], list[str]] = ([], [])

    def next_role(which: int) -> str:
        if not waiting[which]:
            waiting[which].extend(rng.sample(list(roles), len(roles)))
        return waiting[which].pop()

    at = every_s / 2
    while at <= minutes * 60:
        if "kill" in kinds:
            faults.append(Fault(at_s=at, kind="kill", role=next_role(0)))
        if others and at + every_s / 2 <= minutes * 60:
            kind, role = rng.choice(others), next_role(1)
            if kind == "stop":
                seconds = LONG_STOP_S if rng.random() < 0.5 else rng.uniform(*SHORT_STOP_S)
            else:
                seconds = rng.uniform(*DISTURBANCE_S)
            if role == "broker" and kind != "stop":  # the proxies stand between it and the others
                kind, seconds = "stop", rng.uniform(*SHORT_STOP_S)
            faults.append(
                Fault(at_s=at + every_s / 2, kind=kind, role=role, seconds=round(seconds, 1))
            )
        at += every_s
    return faults


def role_names(config: RunConfig) -> list[str]:
    """Processes that a run of this configuration has, the broker apart."""
    scorers = (
        config.scorer.replicas if config.scorer.mode == "http" and not config.scorer.url else 0
    )
    generators = [f"generator-{i}" for i in range(config.generator.replicas)]
    return ["learner-0", *generators, *(f"scorer-{i}" for i in range(scorers))]
