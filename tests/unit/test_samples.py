"""Reading, choosing and ordering what a run kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.samples import read, scores, select


def sample(step: int, *rewards: float, text: str = "four", length: int = 3) -> dict[str, Any]:
    return {
        "step": step,
        "rewards": list(rewards) or None,
        "preferences": None if rewards else [[0.5, 0.8, None], [0.2, 0.5, None], [None, None, 0.5]],
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "completions": [text],
        "lengths": [length],
    }


def test_a_run_without_samples_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples.jsonl: there is no such file: .*keep_samples"):
        read(tmp_path)
    (tmp_path / "samples.jsonl").write_text(json.dumps(sample(1)) + "\n{")
    assert len(read(tmp_path)) == 1


def test_scores_of_a_comparison_are_means_over_those_met() -> None:
    assert scores(sample(1, 0.5, 1.0)) == [0.5, 1.0]
    assert scores(sample(1)) == [0.8, 0.2, None]


def test_they_are_chosen_by_step_and_text() -> None:
    found = [sample(1, 0.1), sample(2, 0.2, text="FIVE"), sample(4, 0.3)]
    assert select(found, step=2) == [found[1]]
    assert select(found, step=-1) == [found[2]]
    assert select(found, grep="fiv") == [found[1]]
    assert select(found, grep=r"2 \+ 2") == found
    with pytest.raises(ConfigError, match="--step 3: there are samples of 3 steps, 1 to 4"):
        select(found, step=3)
    with pytest.raises(ConfigError, match="--step -4: there are samples of 3 steps"):
        select(found, step=-4)
    with pytest.raises(ConfigError, match=r"--grep '\[': no regular expression"):
        select(found, grep="[")


def test_they_are_ordered_by_score_or_length() -> None:
    found = [sample(1, 0.5, length=9), sample(2, 0.9), sample(3, -1.0, length=5)]
    assert [s["step"] for s in select(found, sort="best")] == [2, 1, 3]
    assert [s["step"] for s in select(found, sort="worst")] == [3, 1, 2]
    assert [s["step"] for s in select(found, sort="length")] == [1, 3, 2]
    with pytest.raises(ConfigError, match="--sort size: there are step, best, worst, length"):
        select(found, sort="size")
