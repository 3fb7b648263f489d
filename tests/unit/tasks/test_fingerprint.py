"""A run's data: another file in its place is refused with what changed, unless it is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.errors import ConfigError
from sppo.tasks import fingerprint
from sppo.tasks.questions import Question, Questions


def questions(*texts: str, answer: int = 1) -> Questions:
    rows = [
        Question(source=t, text=t, data={"answer": answer}, where=f"q.jsonl:{i}")
        for i, t in enumerate(texts, 1)
    ]
    return Questions(train=tuple(rows[1:]), held_out=tuple(rows[:1]))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (
            questions("a", "b", "c", "d"),
            r"3 train prompts, 2 before: 1 new or changed \(the first: q.jsonl:4\), 0 gone",
        ),
        (questions("a", "b"), "1 train prompts, 2 before: 0 new or changed, 1 gone or changed"),
        (questions("a", "c", "b"), "train prompts stand in another order"),
        (questions("x", "b", "c"), "1 held-out prompts, 1 before: 1 new or changed"),
        (
            questions("a", "b", "c", answer=2),
            "2 train prompts, 2 before: 2 new or changed .*; 1 held-out prompts",
        ),
    ],
)
def test_other_data_is_refused_with_what_changed(
    tmp_path: Path, now: Questions, words: str
) -> None:
    # Given a run that has trained on three rows
    fingerprint.settle(tmp_path, questions("a", "b", "c"), trained=False, accept=False)
    # Then neither a resumed run nor its learner goes on with other rows
    with pytest.raises(ConfigError, match=f"{words}.*--accept-changed-data"):
        fingerprint.settle(tmp_path, now, trained=True, accept=False)
    with pytest.raises(ConfigError, match=words):
        fingerprint.refuse_changes(tmp_path, now)
    # unless they are accepted, and are then the run's own
    assert not fingerprint.settle(tmp_path, now, trained=True, accept=True)
    assert not fingerprint.settle(tmp_path, now, trained=True, accept=False)
    fingerprint.refuse_changes(tmp_path, now)


def test_the_same_data_is_no_change_wherever_its_rows_stand(tmp_path: Path) -> None:
    fingerprint.settle(tmp_path, questions("a", "b"), trained=False, accept=False)
    moved = Questions(
        train=(Question(source="b", text="b", data={"answer": 1}, where="q.jsonl:9"),),
        held_out=(Question(source="a", text="a", data={"answer": 1}),),
    )
    assert not fingerprint.settle(tmp_path, moved, trained=True, accept=False)


def test_a_run_that_has_trained_nothing_begins_anew(tmp_path: Path) -> None:
    assert not fingerprint.settle(tmp_path, questions("a", "b"), trained=False, accept=False)
    assert fingerprint.settle(tmp_path, questions("a", "c"), trained=False, accept=False)


def test_a_run_without_a_fingerprint_takes_the_data_that_is_there(tmp_path: Path) -> None:
    assert not fingerprint.settle(tmp_path, questions("a"), trained=True, accept=False)
    assert (tmp_path / "data.json").exists()
