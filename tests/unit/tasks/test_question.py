"""What is told of the rows that became no question."""

from __future__ import annotations

from sppo.tasks.question import LeftOut, Question, Questions


def test_a_question_knows_its_whole_prompt() -> None:
    question = Question(source="q", text="q", data={}, earlier=(("system", "s"),))
    assert question.messages == (("system", "s"), ("user", "q"))


def test_counts_add_up_and_the_first_reason_stays() -> None:
    found = LeftOut(rows=3, bad=1, first_bad="a:1: x") + LeftOut(rows=4, bad=2, first_bad="b:1: y")
    assert (found.rows, found.bad, found.first_bad) == (7, 3, "a:1: x")


def test_every_reason_is_told_and_none_that_did_not_occur() -> None:
    assert Questions(train=(), held_out=(), left_out=LeftOut(rows=2)).describe() == (
        "2 rows: 0 prompts to train; 0 held out"
    )
    counts = LeftOut(
        rows=9,
        bad=1,
        first_bad="q:1: no",
        duplicates=3,
        contradictions=2,
        overlap=4,
        too_long=5,
    )
    assert counts.describe() == [
        "3 left out as duplicates of earlier rows, 2 of them with another answer",
        "4 left out of training as they are held out",
        "5 left out as longer than task.max_prompt_tokens",
        "1 left out that cannot be used, the first: q:1: no",
    ]
