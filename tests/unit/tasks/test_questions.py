"""The split: distinct questions, disjoint sides, and no held-out question ever issued for training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError
from sppo.tasks import questions
from sppo.tasks.tickets import TicketFactory, training_index, training_uid
from tests.makers import WordTokenizer


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


def test_the_split_does_not_depend_on_the_prompt_around_the_question(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    other = quickstart.task.model_copy(update={"prompt": "{source_index}: {question}"})
    assert [q.source for q in questions.load(other, seed=0).held_out] == [q.source for q in split.held_out]


def test_no_held_out_question_is_ever_a_training_ticket(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    # Given every ticket of two passes over the training questions, under two seeds
    held_out = {q.text for q in split.held_out}
    for seed in (0, 1):
        run = quickstart.model_copy(update={"seed": seed})
        factory = TicketFactory(run, questions.load(run.task, seed), WordTokenizer())
        issued = [factory.training(i, 0).question for i in range(2 * len(split.train))]
        # Then none asks a held-out question, and a pass asks each question once
        assert not held_out & set(issued)
        assert len(set(issued[: len(split.train)])) == len(split.train)


def test_the_held_out_questions_do_not_depend_on_the_seed(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    assert questions.load(quickstart.task, seed=5).held_out == split.held_out


def test_the_same_index_always_makes_the_same_ticket(quickstart: config.RunConfig, split: questions.Questions) -> None:
    one, other = (TicketFactory(quickstart, split, WordTokenizer()) for _ in range(2))
    other.training(4000, 0)  # another pass first
    assert one.training(7, 3) == other.training(7, 3)
    assert training_index(training_uid(7)) == 7


def test_the_prompt_is_the_one_of_the_demo(split: questions.Questions) -> None:
    assert all(q.text.startswith("Calculate ") for q in split.train)
    assert all(q.text.endswith(". Reply with only the answer.") for q in split.train)


def test_a_prompt_over_the_limit_is_refused_with_the_setting(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    short = quickstart.model_copy(update={"task": quickstart.task.model_copy(update={"max_prompt_tokens": 10})})
    with pytest.raises(ConfigError, match=r"task\.max_prompt_tokens = 10"):
        TicketFactory(short, split, WordTokenizer()).check_lengths()


def test_a_jsonl_file_is_a_task(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps({"question": f"q{i % 50}", "answer": i}) + "\n" for i in range(100)))
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
