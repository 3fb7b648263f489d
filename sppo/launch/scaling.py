"""Changing the number of generators and scorers of a running job: the request, and its answer.

RUN/scale.json     what `sppo-cli scale` asks for
RUN/status.json    under `scale`: the supervisor's answer, and who is leaving
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sppo.errors import ConfigError
from sppo.launch import run_dir as run_dirs

POLL_S = 0.3
ANSWER_TIMEOUT_S = 60.0
SYNC_PATIENCE_S = 300.0
"""How long `follow` gives a newcomer for its first weight sync, which waits for the step at
hand.
"""
ROLES = ("generator", "scorer")


def parse(items: Sequence[str]) -> dict[str, int]:
    """`["generators=3", "scorers=2"]` as `{"generator": 3, "scorer": 2}`. Raises ConfigError."""
    wanted: dict[str, int] = {}
    for item in items:
        name, equals, number = item.partition("=")
        role = name.removesuffix("s")
        if role not in ROLES or not equals:
            raise ConfigError(f"{item!r}: write it as generators=3 or scorers=2")
        if not number.isdigit() or int(number) < 1:
            raise ConfigError(f"{item!r}: there must be at least one; `sppo-cli down` ends a run")
        wanted[role] = int(number)
    if not wanted:
        raise ConfigError("say how many: generators=3, scorers=2, or both")
    return wanted


def request(run_dir: Path, wanted: dict[str, int]) -> str:
    """Ask the supervisor of a running job; returns the request's id. Raises ConfigError if none is
    running.
    """
    run_dirs.describe(run_dir)
    if run_dirs.running(run_dir) is None:
        raise ConfigError(
            f"{run_dir}: nothing is running; `--set generator.replicas=N` says how many `up` starts"
        )
    if (run_dirs.read_json(run_dir / "status.json") or {}).get("by") == "learner":
        raise ConfigError(
            f"{run_dir}: the roles of this run were started by hand; start more with `sppo-cli "
            f"generator` or `sppo-cli "
            "scorer`, and end one with SIGTERM"
        )
    identity = uuid.uuid4().hex
    run_dirs.write_json(run_dir / "scale.json", {"id": identity, "wanted": wanted})
    return identity


def read(run_dir: Path) -> dict[str, Any]:
    """The newest request, or an empty object."""
    return run_dirs.read_json(run_dir / "scale.json") or {}


def follow(
    run_dir: Path,
    identity: str,
    wanted: dict[str, int],
    tell: Callable[[str], None],
    *,
    timeout_s: float,
) -> None:
    """Wait until as many as were asked for are at work and nobody is leaving.

    Raises ConfigError with the supervisor's reason if it refuses, or if the run ends first or time
    is over.
    """
    began, said = time.monotonic(), ""
    while True:
        status = run_dirs.read_json(run_dir / "status.json") or {}
        answer = status.get("scale") or {}
        elapsed = time.monotonic() - began
        if run_dirs.running(run_dir) is None:
            raise ConfigError(f"{run_dir}: the run has ended meanwhile")
        if answer.get("id") != identity:
            if elapsed > ANSWER_TIMEOUT_S:
                raise ConfigError(
                    f"{run_dir}: the run gave no answer within {ANSWER_TIMEOUT_S:.0f} s; see its "
                    f"logs"
                )
        elif answer["refused"]:
            raise ConfigError(answer["refused"])
        else:
            at_work = {role: _at_work(status, role) for role in wanted}
            news = ", ".join(
                f"{n} of {wanted[role]} {role}s at work" for role, n in at_work.items()
            )
            if answer["leaving"]:
                news += f"; leaving: {', '.join(answer['leaving'])}"
            if news != said:
                said = news
                tell(news)
            enough = all(
                at_work[role] >= count for role, count in wanted.items()
            )  # others may have come by hand
            if enough and not answer["leaving"]:
                return
            if elapsed > timeout_s:
                raise ConfigError(f"{run_dir}: after {timeout_s:.0f} s {news}; see {run_dir}/logs")
        time.sleep(POLL_S)


def _at_work(status: dict[str, Any], role: str) -> int:
    """Live members of a role; a generator counts once it runs published weights."""
    members = {name: m for name, m in (status.get("members") or {}).items() if m["role"] == role}
    return sum(1 for m in members.values() if role != "generator" or m["applied"])
