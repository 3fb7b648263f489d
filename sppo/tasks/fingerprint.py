"""What a run was trained on, kept in its directory, so that no other data takes its place
unnoticed.

RUN/data.json holds a digest of each prompt with its row's columns, in the order in which the run
numbers them. A ticket's number is a place in that order: with other data the same number means
another prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sppo.errors import ConfigError
from sppo.tasks.questions import Question, Questions

_FILE = "data.json"
_SIDES = ("train", "held_out")


def refuse_changes(run_dir: Path, questions: Questions) -> None:
    """Raises ConfigError saying what has changed and what can be done."""
    if changed := _changes(run_dir, questions, _digests(questions)):
        raise _refusal(run_dir, changed)


def settle(run_dir: Path, questions: Questions, *, trained: bool, accept: bool) -> bool:
    """Keep this data as the run's own; returns whether the run begins anew, since nothing was
    trained on other data.

    Where something was, other data is refused with a ConfigError, unless it is accepted: tickets in
    flight then keep the prompts they were made from, and the run's numbers go on, in the order of
    the new data.
    """
    digests = _digests(questions)
    changed = _changes(run_dir, questions, digests)
    if changed and trained and not accept:
        raise _refusal(run_dir, changed)
    scratch = run_dir / f".{_FILE}.partial"
    scratch.write_text(json.dumps(digests), encoding="utf-8")
    scratch.replace(run_dir / _FILE)
    return bool(changed) and not trained


def _refusal(run_dir: Path, changed: str) -> ConfigError:
    return ConfigError(
        f"{run_dir} was trained on other data: {changed}; put the data back, choose another "
        f"directory, or go on "
        "with what is there now: --accept-changed-data"
    )


def _changes(run_dir: Path, questions: Questions, digests: dict[str, list[str]]) -> str:
    """How the data differs from what the run began with; empty if it does not, or nothing is
    kept.
    """
    path = run_dir / _FILE
    if not path.exists():
        return ""
    kept: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    found = [
        _difference(side, kept[side], digests[side], getattr(questions, side)) for side in _SIDES
    ]
    return "; ".join(text for text in found if text)


def _difference(side: str, kept: list[str], now: list[str], questions: Sequence[Question]) -> str:
    if now == kept:
        return ""
    before, after = set(kept), set(now)
    new = [
        question for digest, question in zip(now, questions, strict=True) if digest not in before
    ]
    name = side.replace("_", "-")
    if not new and after == before:
        return f"{name} prompts stand in another order"
    first = f" (the first: {new[0].where})" if new else ""
    return (
        f"{len(now)} {name} prompts, {len(kept)} before: {len(new)} new or changed{first}, "
        f"{len(before - after)} gone or changed"
    )


def _digests(questions: Questions) -> dict[str, list[str]]:
    return {side: [_digest(q) for q in getattr(questions, side)] for side in _SIDES}


def _digest(question: Question) -> str:
    text = json.dumps([question.messages, question.data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
