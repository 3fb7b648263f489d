"""What a check has found, and how a check that breaks is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sppo.config import RunConfig
from sppo.errors import SppoError

State = Literal["ok", "warn", "fail", "skip"]
STATES: tuple[State, ...] = ("ok", "warn", "fail", "skip")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `name` says what was looked at, `words` what is there, `mend` what to do."""

    name: str
    state: State
    words: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The run that is to be started here."""

    config: RunConfig
    folder: Path
    """Its directory, which need not be there yet."""


Check = Callable[[Run], Sequence[Finding]]


def ok(name: str, words: str) -> Finding:
    """As it should be."""
    return Finding(name, "ok", words)


def warn(name: str, words: str, mend: str) -> Finding:
    """A run starts, and is slower, less safe or less sure than it could be."""
    return Finding(name, "warn", words, mend)


def fail(name: str, words: str, mend: str) -> Finding:
    """This run would not start, or not work."""
    return Finding(name, "fail", words, mend)


def skip(name: str, why: str) -> Finding:
    """Not looked at."""
    return Finding(name, "skip", why)


def refused(name: str, error: SppoError) -> Finding:
    """What a start would say; the message has setting, value and, behind a semicolon or a colon,
    the mend.
    """
    return Finding(name, "fail", str(error))


def made(name: str, check: Check, run: Run) -> list[Finding]:
    """The findings of a check; one that breaks is a finding itself, as no other may go missing for
    it.
    """
    try:
        return list(check(run))
    except SppoError as error:
        return [refused(name, error)]
    except Exception as error:  # noqa: BLE001 - shown on the check's own line
        words = " ".join(str(error).split())[:300]
        return [skip(name, f"could not be looked at: {type(error).__name__}: {words}")]


def counted(found: Iterable[Finding]) -> dict[State, int]:
    """How many there are of each state."""
    counts = Counter(finding.state for finding in found)
    return {state: counts[state] for state in STATES}
