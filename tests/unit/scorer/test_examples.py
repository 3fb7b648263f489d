"""The examples of scorers that hold a model run as their first lines say, on tiny models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.scorers import tiny_models
from sppo.config import RunConfig, load
from sppo.scorer import calls
from sppo.scorer.base import SCORERS, check_options, checked
from sppo.types import ScoreRequest, Scores
from tests.unit.scorer.asking import made

EXAMPLES = Path(__file__).parents[3] / "examples" / "scorers"
GROUP = ScoreRequest(
    uid="u", question="what is two + three ?", data={"answer": "five"},
    completions=["it is five", "i think it is six", "bad", "a long answer", "four ."],
)  # fmt: skip


def answer(config: RunConfig, model: str) -> Scores:
    """What the scorer of an example says of the group, in this process."""
    options = {**config.scorer.options, "model": model}
    check_options(config.scorer.name, options)
    target = SCORERS[config.scorer.name]
    assert isinstance(target, str)
    scorer = calls.make(config.scorer.name, calls.find(target)[0], options)
    scorer.setup()
    return checked(config.scorer.name, GROUP, scorer.score(GROUP))


def test_a_reward_model(tmp_path: Path) -> None:
    config = load(str(EXAMPLES / "reward-model.toml"), environment=False)
    assert config.objective.link == "bradley-terry"
    model = made(tmp_path / "rm", tiny_models.MODELS["reward-model"])
    found = answer(config, model)
    assert found.rewards is not None
    assert len(set(found.rewards.tolist())) == 5


@pytest.mark.parametrize("maker", ["pairrm", "general-preference"])
def test_a_pairwise_model(tmp_path: Path, maker: str) -> None:
    config = load(str(EXAMPLES / "pairwise-model.toml"), environment=False)
    assert config.objective.target == "half"
    found = answer(config, made(tmp_path / maker, tiny_models.MODELS[maker]))
    assert found.preferences is not None
    assert np.isnan(found.preferences).sum() == 0  # of five, two each way are all
    assert (found.preferences != 0.5).any()
