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
    left_out = loaded.left_out
    assert (left_out.rows, left_out.duplicates, left_out.contradictions) == (301, 1, 0)
    spare = 300 - len(loaded.train) - 20
    assert loaded.describe() == (
        f"301 rows: {len(loaded.train)} prompts to train; 20 held out; {spare} on the held-out "
        "side beyond task.held_out, unused; 1 left out as duplicates of earlier rows"
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


def test_a_list_of_chat_messages_is_the_prompt_where_its_column_is_named(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "You add."}, {"role": "user", "content": "1+1?"}]
    name = file_of(tmp_path, [{"question": chat, "answer": "2"}])
    loaded = load(name, messages="question").train[0]
    assert loaded.messages == (("system", "You add."), ("user", "1+1?"))
    assert (loaded.text, loaded.data["question"]) == ("1+1?", chat)
    with pytest.raises(ConfigError, match=r"question is a list, .*task\.messages = 'question'"):
        load(name)


def load(name: Any, readable: questions.Readable | None = None, **task: Any) -> questions.Questions:
    given = {"name": name, "held_out": 0} | task
    return questions.load(config.TaskConfig(**given), seed=0, readable=readable)


def rows_of(*texts: str) -> list[dict[str, Any]]:
    return [{"question": text, "answer": text} for text in texts]


def test_a_judge_needs_no_answer(tmp_path: Path) -> None:
    loaded = load(file_of(tmp_path, [{"prompt": "p", "x": 1}]), prompt="{prompt}")
    assert loaded.train[0].data == {"prompt": "p", "x": 1}


def test_the_answer_has_a_column_of_its_choice_beside_the_others(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "other", "reward_model": {"ground_truth": "4"}}
    loaded = load(file_of(tmp_path, [row]), answer="reward_model.ground_truth")
    assert loaded.train[0].data == row | {"answer": "4"}
    with pytest.raises(ConfigError, match=r"no column 'solution' \(task\.answer\); there are"):
        load(file_of(tmp_path, [row]), answer="solution")


def test_single_bad_rows_are_left_out_and_the_first_is_told(tmp_path: Path) -> None:
    rows = [*rows_of(*"abcdef"), {"answer": "no question"}, {"question": ["x"], "answer": 2**70}]
    loaded = load(file_of(tmp_path, rows))
    assert sorted(q.text for q in loaded.train) == list("abcdef")
    file = tmp_path / "q.jsonl"
    assert loaded.left_out.bad == 2
    # Columns that cannot travel are found before prompts are made.
    assert loaded.describe().endswith(
        f"2 left out that cannot be used, the first: {file}:8: column 'answer': the integer "
        f"{2**70} is beyond 64 bits; write it as text"
    )


def test_where_most_rows_are_bad_the_setting_is(tmp_path: Path) -> None:
    rows = [{"instruction": "i", "output": "o"}] * 3
    with pytest.raises(
        ConfigError,
        match=r"^task\.name = 'jsonl:.*': none of 3 rows can be used; .*q\.jsonl:1: task\.prompt = "
        r"'\{question\}': no column 'question'; there are instruction, output$",
    ):
        load(file_of(tmp_path, rows))


def test_a_row_whose_answer_the_scorer_cannot_read_is_a_bad_row(tmp_path: Path) -> None:
    def even(data: Any) -> None:
        if int(data["answer"]) % 2:
            raise ValueError("odd")

    name = file_of(tmp_path, rows_of("0", "1", "2"))
    loaded = load(name, even)
    assert sorted(q.text for q in loaded.train) == ["0", "2"]
    assert loaded.left_out.first_bad.endswith("q.jsonl:2: odd")


def test_a_held_out_source_is_held_out_whole_and_never_trained(tmp_path: Path) -> None:
    # Given a test file of which two prompts stand in the training file too, one in other capitals
    (tmp_path / "test").mkdir()
    test = file_of(tmp_path / "test", rows_of("x", "y", "What  is b?", "x"))
    name = file_of(tmp_path, rows_of("a", "what is B?", "c", "y"))
    # When it is the held-out side
    loaded = load(name, held_out=test)
    # Then it is that alone, and the overlap is left out of the other side and told
    assert [q.text for q in loaded.held_out] == ["x", "y", "What  is b?"]
    assert [q.text for q in loaded.train] == ["a", "c"]
    assert loaded.describe() == (
        "8 rows: 2 prompts to train; 3 held out; 1 left out as duplicates of earlier rows; "
        "2 left out of training as they are held out"
    )
    with pytest.raises(ConfigError, match=r"task\.held_out = .*none is left to train"):
        load(name, held_out=name)


def test_a_mixture_keeps_where_each_question_is_from(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    a, b = file_of(tmp_path, rows_of("1", "2")), file_of(tmp_path / "b", rows_of("2", "3"))
    loaded = load([{"name": a, "weight": 3}, b])
    assert {(q.text, q.origin) for q in loaded.train} == {("1", 0), ("2", 0), ("3", 1)}
    assert loaded.weights == (3.0, 1.0)
    assert loaded.left_out.duplicates == 1
    with pytest.raises(ConfigError, match=r"task\.name\[1\]: none of its prompts is left"):
        load([a, a])
    with pytest.raises(ConfigError, match=r"task\.name\[1\]\.name = 'nope': write it as hf:"):
        load([a, "nope"])


def test_prompts_with_the_same_question_and_other_systems_of_their_own_are_distinct(
    tmp_path: Path,
) -> None:
    user = {"role": "user", "content": "u"}
    rows = [{"chat": [{"role": "system", "content": s}, user]} for s in ("a", "b")]
    assert len(load(file_of(tmp_path, rows), messages="chat").train) == 2
