"""The split: distinct questions, disjoint sides, and no held-out question ever issued for
training.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sppo import config
from sppo.errors import ConfigError
from sppo.tasks import questions


@pytest.fixture(scope="module")
def quickstart() -> config.RunConfig:
    return config.load("quickstart")


@pytest.fixture(scope="module")
def split(quickstart: config.RunConfig) -> questions.Questions:
    return questions.load(quickstart.task, seed=0)


def test_the_sides_are_distinct_and_disjoint(split: questions.Questions) -> None:
    train, held_out = ({q.text for q in side} for side in (split.train, split.held_out))
    assert len(held_out) == len(split.held_out) == 200
    assert len(train) == len(split.train) > 2000
    assert not train & held_out
    assert not {q.source for q in split.train} & {q.source for q in split.held_out}


def test_the_split_does_not_depend_on_the_words_around_the_question(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    other = quickstart.task.model_copy(update={"prompt": "Now: {question}"})
    assert [q.source for q in questions.load(other, seed=0).held_out] == [
        q.source for q in split.held_out
    ]


def test_a_procedural_question_is_on_one_side_whatever_other_fields_the_prompt_names(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    numbered = quickstart.task.model_copy(update={"prompt": "{source_index}: {question}"})
    loaded = questions.load(numbered, seed=0)
    assert len(loaded.train) > len(
        split.train
    )  # the prompts are distinct although questions repeat
    assert not {q.source for q in loaded.train} & {q.source for q in loaded.held_out}


def test_the_split_of_the_quickstart_stays_what_published_accuracies_were_measured_on(
    split: questions.Questions,
) -> None:
    names = "".join(q.source for q in (*split.train, *split.held_out))
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "36b9a927f80bf492"


def test_the_held_out_questions_do_not_depend_on_the_seed(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    assert questions.load(quickstart.task, seed=5).held_out == split.held_out


def test_the_prompt_is_the_one_of_the_demo(split: questions.Questions) -> None:
    assert all(q.text.startswith("Calculate ") for q in split.train)
    assert all(q.text.endswith(". Reply with only the answer.") for q in split.train)


def test_a_jsonl_file_is_a_task(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(
        "".join(json.dumps({"question": f"q{i % 50}", "answer": i}) + "\n" for i in range(100))
    )
    loaded = questions.load(config.TaskConfig(name=f"jsonl:{file}", held_out=3), seed=0)
    assert len(loaded.train) + len([q for q in range(50) if questions.is_held_out(f"q{q}")]) == 50
    assert len(loaded.held_out) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "nope"}, "task.name"),
        ({"name": "reasoning-gym:no_such_set"}, "no_such_set"),
        ({"name": "jsonl:/no/such/file"}, "no such file"),
        ({"prompt": "{nope}"}, "task.prompt"),
        ({"params": {"no_such_argument": 1}}, "task.params"),
        ({"held_out": 100_000}, "task.held_out"),
    ],
)
def test_a_bad_task_is_named_with_its_setting(
    quickstart: config.RunConfig, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        questions.load(quickstart.task.model_copy(update=changes), seed=0)


def file_of(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"jsonl:{path}"


def test_rows_with_one_question_and_other_contexts_are_other_prompts(tmp_path: Path) -> None:
    # Given two questions about three hundred passages, and one row twice
    rows = [
        {"context": f"Passage {i}.", "question": f"Who {i % 2}?", "answer": i} for i in range(300)
    ]
    name = file_of(tmp_path, [*rows, rows[7]])
    # When the prompt names the passage
    loaded = questions.load(
        config.TaskConfig(name=name, prompt="{context} {question}", held_out=20), seed=0
    )
    # Then each passage is a prompt, on one side, and the hash does not put all of one question on
    # one side
    prompts = [{q.text for q in side} for side in (loaded.train, loaded.held_out)]
    assert len(prompts[1]) == 20
    assert not prompts[0] & prompts[1]
    assert all(
        {q.data["question"] for q in side} == {"Who 0?", "Who 1?"}
        for side in (loaded.train, loaded.held_out)
    )
    # And what is left out is counted
    assert (loaded.rows, loaded.duplicates, loaded.contradictions) == (301, 1, 0)
    spare = 300 - len(loaded.train) - 20
    assert loaded.describe() == (
        f"301 rows: {len(loaded.train)} prompts to train; 20 held out; 1 left out as duplicates of "
        f"earlier rows; "
        f"{spare} on the held-out side beyond task.held_out, unused"
    )


def test_duplicates_with_another_answer_are_counted_apart(tmp_path: Path) -> None:
    rows = [{"question": q, "answer": a} for q, a in (("a", 1), ("a", 1), ("a", 2), ("b", 1))]
    loaded = questions.load(config.TaskConfig(name=file_of(tmp_path, rows), held_out=0), seed=0)
    assert (
        "2 left out as duplicates of earlier rows, 1 of them with another answer"
        in loaded.describe()
    )


@pytest.mark.parametrize("metadata", [None, "train-1", ["algebra"], 5, True, {"task": "other"}])
def test_every_column_reaches_the_scorer_as_it_is(tmp_path: Path, metadata: Any) -> None:
    row = {
        "question": "q",
        "answer": 1.5,
        "task": "add",
        "uid": "u",
        "metadata": metadata,
        "x": [None, {"y": 2**64 - 1}],
    }
    loaded = questions.load(config.TaskConfig(name=file_of(tmp_path, [row]), held_out=0), seed=0)
    assert loaded.train[0].data == row


def test_a_list_of_chat_messages_is_the_prompt(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "You add."}, {"role": "user", "content": "1+1?"}]
    name = file_of(tmp_path, [{"question": chat, "answer": "2"}])
    loaded = questions.load(
        config.TaskConfig(name=name, prompt="{question} Briefly.", held_out=0), seed=0
    ).train[0]
    assert loaded.messages == (("system", "You add."), ("user", "1+1? Briefly."))
    assert (loaded.text, loaded.data["question"]) == ("1+1? Briefly.", chat)
