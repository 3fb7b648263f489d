"""The presets' data as it is published: each loads, as it stands, what its data sets look like."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from sppo import config
from sppo.config import RunConfig
from sppo.scorer import rules
from sppo.tasks import questions
from sppo.tasks.order import Order
from sppo.tasks.question import Questions
from tests import published


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.keep(tmp_path / "hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "built"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def load(preset: str, *changes: str) -> tuple[RunConfig, Questions]:
    run = config.load(preset, [f"task.{change}" for change in changes])
    return run, questions.load(run.task, run.seed, rules.readable(run.scorer))


def test_gsm8k_has_its_answer_behind_four_hashes_and_its_test_set_held_out() -> None:
    _, found = load("gsm8k")
    assert (len(found.train), len(found.held_out), found.left_out.bad) == (7, 3, 0)
    first = found.held_out[0]
    assert first.text.startswith("A baker puts 6 rolls")
    assert first.text.endswith("put the final answer within \\boxed{}.")
    assert rules.boxed_answer("", ["So \\boxed{87}.", "#### 87"], first.data) == [1.0, 0.0]


def test_math_has_its_answer_in_the_solutions_box_and_math_500_held_out() -> None:
    _, found = load("math")
    assert (len(found.train), len(found.held_out), found.left_out.bad) == (6, 2, 0)
    # MATH-500 has an `answer` of its own; the solution is read on both sides.
    said = ["\\boxed{\\frac{7}{13}}", "\\boxed{\\dfrac{7}{12}}"]
    assert rules.boxed_answer("", said, found.held_out[1].data) == [0.0, 1.0]
    assert found.held_out[1].data["unique_id"] == "1"


def test_ultrafeedback_is_messages_without_an_answer() -> None:
    _, found = load("ultrafeedback", "held_out=2")
    assert (len(found.train) + len(found.held_out) + found.spare, found.left_out.bad) == (12, 0)
    assert all(len(q.messages) == 1 and "answer" not in q.data for q in found.train)


def test_paper_mixes_the_prompts_of_its_three_iterations_in_equal_shares() -> None:
    run, found = load("paper", "held_out=0")
    assert [len([q for q in found.train if q.origin == i]) for i in range(3)] == [14, 13, 13]
    order = Order(found, run.seed)
    assert len({order.question(i).text for i in range(60)}) == 40
    assert found.train[0].messages == (("user", found.train[0].data["prompt"]),)
