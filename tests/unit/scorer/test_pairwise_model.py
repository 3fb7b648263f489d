"""Which pairs of completions a pairwise model is asked about, and what becomes of its logits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sppo.errors import ConfigError
from sppo.scorer.calls import OptionError, make
from sppo.scorer.comparisons import fault, met
from sppo.scorer.pairwise_model import PairwiseModel, Question
from tests.unit.scorer.asking import request


class Longer:
    """Prefers the longer text by a nat a letter, and what is shown first by half a nat."""

    temperature = 2.0

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def logits(self, asked: Sequence[Question], rows: int) -> list[float]:
        self.asked += [(first, second) for _, first, second in asked]
        return [len(first) - len(second) + 0.5 for _, first, second in asked]


def judge(**options: Any) -> tuple[PairwiseModel, Longer]:
    """A scorer with that model."""
    made, ranker = PairwiseModel(model="anyone/anything", **options), Longer()
    made._ranker, made._tau = ranker, options.get("temperature") or ranker.temperature
    return made, ranker


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def test_both_orders_are_asked_and_the_position_drops_out() -> None:
    scorer, ranker = judge()
    found = np.array(scorer.score(request("a", "bb", "a")))
    assert len(ranker.asked) == 6
    ahead = (sigmoid(1.5 / 2) + 1 - sigmoid(-0.5 / 2)) / 2
    assert found[1, 0] == found[1, 2] == pytest.approx(ahead)
    assert found[0, 2] == found[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(("compare", "pairs"), [("circular", 6), ("anchors", 5), ("all", 15)])
def test_only_the_pairs_of_the_strategy_are_asked_about(compare: str, pairs: int) -> None:
    scorer, ranker = judge(compare=compare)
    found = np.array(scorer.score(request(*"abcdef")), np.float32)
    assert len(ranker.asked) == 2 * pairs
    assert met(found).sum() == 2 * pairs
    assert fault(found) is None


def test_against_a_reference_the_answer_is_a_reward() -> None:
    scorer, ranker = judge(compare="reference", reference="gold")
    found = scorer.score(request("a", "bbbb", data={"gold": "cc"}))
    assert ("cc", "a") in ranker.asked
    shorter, longer = (
        (sigmoid(-0.25) + 1 - sigmoid(0.75)) / 2,
        (sigmoid(1.25) + 1 - sigmoid(-0.75)) / 2,
    )
    assert found == pytest.approx([shorter, longer])


def test_a_single_completion_is_compared_with_the_rows_answer_or_with_nobody() -> None:
    scorer, _ = judge(temperature=1.0)
    alone = request("it is six .", data={"answer": "it is five ."})
    (found,) = scorer.score(alone)
    assert found < 0.5
    with pytest.raises(ValueError, match=r"scorer.options.reference = 'answer'.*task.held_out = 0"):
        scorer.score(request("it is six .", data={"answer": None}))
    scorer, _ = judge(compare="reference")
    with pytest.raises(ValueError, match=r"to compare with; its columns are answer, level"):
        scorer.score(request("a", "b", data={"answer": 3, "level": 1}))


def test_groups_are_scored_together_as_they_are_alone() -> None:
    scorer, _ = judge(compare="circular")
    groups = [request(*"abcd"), request("one", "three", uid="v"), request("alone", uid="w")]
    found = scorer.score(groups)
    for group, answer in zip(groups, found, strict=True):
        np.testing.assert_array_equal(answer, scorer.score(group))


def test_a_logit_beyond_what_a_float_has_is_a_certain_win() -> None:
    scorer, _ = judge(temperature=1e-6)
    assert scorer.score(request("a", "bb"))[1] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compare": "most"}, "scorer.options.compare = 'most': must be one of 'all'"),
        ({"opponents": 0}, "scorer.options.opponents = 0 must be at least 1"),
        ({"rows": 0}, "scorer.options.rows = 0 must be at least 1"),
        ({"temperature": 0.0}, "scorer.options.temperature = 0.0 must be above 0"),
        ({"dtype": "int8"}, "scorer.options.dtype = 'int8'"),
        ({"oponents": 2}, "scorer.options.oponents: no such option.*did you mean opponents"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make("pairwise-model", PairwiseModel, {"model": "a/b", **options})


def test_a_folder_without_a_model_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scorer.options.model.*holds no config.json"):
        PairwiseModel(model=str(tmp_path))


def test_a_checkpoint_of_neither_layout_is_refused_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    save_file({"lm_head.weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"scorer.options.model.*neither a PairRM.*value_head"):
        PairwiseModel(model=str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"model.safetensors cannot be read .*fetch it anew"):
        PairwiseModel(model=str(tmp_path))


def test_making_it_loads_no_torch() -> None:
    code = (
        "import sys; from sppo.scorer import pairwise_model, reward_model; "
        "pairwise_model.PairwiseModel(model='a/b'); reward_model.RewardModel(model='a/b'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
