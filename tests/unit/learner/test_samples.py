"""Which groups of a step are kept, as what, and what a resume and a full file do to them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sppo.learner.samples import COMPLETIONS, TEXT, Samples, choose
from sppo.samples import read
from sppo.types import Group
from tests import makers


class Tokenizer:
    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(map(str, ids))


class Tickets:
    def messages(self, uid: str) -> tuple[tuple[str, str], ...]:
        return (("system", "Be brief."), ("user", f"question of {uid}"))


def samples(folder: Path, keep: int = 1, **limits: int) -> Samples:
    tokenizer, tickets = Tokenizer(), Tickets()
    asked: Any = tickets
    return Samples(makers.training(keep_samples=keep), folder, tokenizer, asked, **limits)


def rewarded(uid: str, *rewards: float, cut: int = 0) -> Group:
    group = makers.group(uid, size=len(rewards))
    completions = [
        replace(c, finish_reason="length") if i < cut else c
        for i, c in enumerate(group.completions)
    ]
    values = np.asarray(rewards, np.float32)
    return replace(group, rewards=values, completions=tuple(completions))


def test_the_best_the_worst_and_the_truncated_are_chosen_and_others() -> None:
    groups = [
        rewarded("a", 0.5, 0.5),
        rewarded("b", 0.5, 2.0),
        rewarded("c", 0.0, -1.0, cut=1),
        rewarded("d", 0.5, 0.0, cut=2),
        rewarded("e", 0.5, 0.0),
    ]
    assert choose(groups, 1) == {1: ["best"], 2: ["worst"], 3: ["truncated"], 0: ["any"]}
    assert choose(groups[1:2], 5) == {0: ["best", "worst"]}


def test_preferences_are_chosen_by_their_means_over_those_met() -> None:
    nan = math.nan
    lone = makers.group("a", preferences=[[0.5, nan], [nan, 0.5]])
    clear = makers.group("b", preferences=[[0.5, 0.9], [0.1, 0.5]])
    even = makers.group("c", preferences=[[0.5, 0.5], [0.5, 0.5]])
    assert choose([lone, clear, even], 0) == {1: ["best", "worst"]}
    assert choose([lone], 1) == {0: ["any"]}


def test_a_sample_holds_everything_about_its_group(tmp_path: Path) -> None:
    matrix = [[0.5, 0.9, math.nan], [0.1, 0.5, math.nan], [math.nan, math.nan, 0.5]]
    group = replace(
        makers.group("train-000000007", size=3, preferences=matrix),
        details=({"calls": 2}, {}, {"unread": True}),
    )
    samples(tmp_path).of_steps([{"step": 4, "tickets": ["train-000000007", "gone"]}], [group])
    (found,) = read(tmp_path)
    assert found == {
        "step": 4,
        "stream": "train",
        "uid": "train-000000007",
        "why": ["best", "worst"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "question of train-000000007"},
        ],
        "completions": ["4", "5 5", "6 6 6"],
        "of": 3,
        "rewards": None,
        "preferences": [[0.5, 0.9, None], [0.1, 0.5, None], [None, None, 0.5]],
        "details": [{"calls": 2}, {}, {"unread": True}],
        "lengths": [1, 2, 3],
        "finish_reasons": ["stop"] * 3,
        "versions": [["e1:0"]] * 3,
        "generator": "generator-0",
    }


def test_each_step_of_a_batch_has_its_own(tmp_path: Path) -> None:
    groups = [rewarded(f"train-{i}", 0.0, 1.0) for i in range(4)]
    steps = [{"step": 1, "tickets": ["train-0", "train-1"]}, {"step": 2, "tickets": ["train-3"]}]
    made = samples(tmp_path)
    made.of_steps(steps, groups)
    made.of_evaluation(2, [makers.group("eval-x-000000", size=1)])
    found = [(s["step"], s["uid"], s["stream"]) for s in read(tmp_path)]
    assert found == [
        (1, "train-0", "train"),
        (1, "train-1", "train"),
        (2, "train-3", "train"),
        (2, "eval-x-000000", "eval"),
    ]


def test_a_resume_leaves_no_sample_of_a_line_that_was_given_up(tmp_path: Path) -> None:
    made, group = samples(tmp_path), rewarded("train-0", 0.0, 1.0)
    for n in (1, 2, 3):
        made.of_steps([{"step": n, "tickets": ["train-0"]}], [group])
    for n in (0, 2):
        made.of_evaluation(n, [makers.group("eval-x-000000", size=1)])
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 3, "str')  # killed while it wrote
    samples(tmp_path).resume(2, [0])
    assert [(s["step"], s["stream"]) for s in read(tmp_path)] == [
        (1, "train"), (2, "train"), (0, "eval"),
    ]  # fmt: skip


def test_a_full_file_keeps_every_other_step(tmp_path: Path) -> None:
    made = samples(tmp_path, most_bytes=3000)
    for n in range(1, 41):
        made.of_steps([{"step": n, "tickets": ["train-0"]}], [rewarded("train-0", 0.0, 1.0)])
        assert (tmp_path / "samples.jsonl").stat().st_size <= 3000
    steps = [sample["step"] for sample in read(tmp_path)]
    assert steps[0] == 1
    assert steps[-1] >= 39
    assert 2 < len(steps) < 12


def test_none_are_kept_without_the_setting(tmp_path: Path) -> None:
    samples(tmp_path, keep=0).of_steps(
        [{"step": 1, "tickets": ["train-0"]}], [rewarded("train-0", 0.0, 1.0)]
    )
    assert not (tmp_path / "samples.jsonl").exists()


def test_a_large_group_and_a_long_text_are_cut(tmp_path: Path) -> None:
    k = 3 * COMPLETIONS
    rewards = [0.0] * k
    rewards[20], rewards[30] = 1.0, -1.0
    group = rewarded("train-0", *rewards)
    long = replace(makers.completion([7] * TEXT))
    group = replace(group, completions=(long, *group.completions[1:]))
    samples(tmp_path).of_steps([{"step": 1, "tickets": ["train-0"]}], [group])
    (found,) = read(tmp_path)
    assert (found["of"], len(found["completions"])) == (k, COMPLETIONS)
    assert max(found["rewards"]) == 1.0
    assert min(found["rewards"]) == -1.0
    assert found["completions"][0].endswith("… [19,999 more characters]")
