"""What a run was trained on, kept in its directory, so that no other data takes its place unnoticed.

RUN/data.json holds a digest of each prompt with its row's columns, in the order in which the run numbers them. A
ticket's number is a place in that order: with other data the same number means another prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sppo.errors import ConfigError
from sppo.tasks.questions import Question, Questions

_FILE = "data.json"
_SIDES = ("train", "held_out")


def changes(run_dir: Path, questions: Questions) -> str:
    """How the data differs from what the run in this directory began with; empty if it does not, or none is kept."""
    path = run_dir / _FILE
    if not path.exists():
        return ""
    kept: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    found = [_difference(side, kept[side], getattr(questions, side)) for side in _SIDES]
    return "; ".join(text for text in found if text)


def refuse_changes(run_dir: Path, questions: Questions) -> None:
    """Raises ConfigError saying what has changed and what can be done."""
    if changed := changes(run_dir, questions):
        raise ConfigError(
            f"{run_dir} was trained on other data: {changed}; put the data back, choose another directory, or go on "
            "with what is there now: --accept-changed-data"
        )


def settle(run_dir: Path, questions: Questions, *, trained: bool, accept: bool) -> bool:
    """Keep this data as the run's own; returns whether the run begins anew, since nothing was trained on other data.

    Where something was, other data is refused with a ConfigError, unless it is accepted: tickets in flight then keep
    the prompts they were made from, and the run's numbers go on, in the order of the new data.
    """
    changed = changes(run_dir, questions)
    if changed and trained and not accept:
        refuse_changes(run_dir, questions)
    keep(run_dir, questions)
    return bool(changed) and not trained


def keep(run_dir: Path, questions: Questions) -> None:
    """Write RUN/data.json."""
    sides = {side: [_digest(q) for q in getattr(questions, side)] for side in _SIDES}
    scratch = run_dir / f".{_FILE}.partial"
    scratch.write_text(json.dumps(sides), encoding="utf-8")
    scratch.replace(run_dir / _FILE)


def _difference(side: str, kept: list[str], questions: Iterable[Question]) -> str:
    now = {_digest(q): q for q in questions}
    if list(now) == kept:
        return ""
    before = set(kept)
    new, gone = [q for digest, q in now.items() if digest not in before], before - now.keys()
    name = side.replace("_", "-")
    if not new and not gone:
        return f"{name} prompts stand in another order"
    first = f" (the first: {new[0].where})" if new else ""
    return (
        f"{len(now)} {name} prompts, {len(kept)} before: {len(new)} new or changed{first}, {len(gone)} gone or changed"
    )


def _digest(question: Question) -> str:
    text = json.dumps([question.messages, question.data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
