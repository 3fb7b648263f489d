"""PairRM's format: a whole forward against one by hand from the checkpoint's weights."""

from __future__ import annotations

import json
import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

from examples.scorers import tiny_models
from sppo.errors import ConfigError
from sppo.scorer.pairrm import PairRM
from tests.unit.scorer.asking import ANSWERS, QUESTION, made, request, scorer

TARGET = "sppo.scorer.pairwise_model:PairwiseModel"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory.mktemp("models") / "pairrm", tiny_models.pairrm)


class ByHand:
    """The published example: each part encoded for itself, then one forward for an ordered pair."""

    def __init__(self, path: str) -> None:
        self.weights = load_file(f"{path}/model.safetensors")
        encoder = {
            name.removeprefix("pretrained_model."): weight
            for name, weight in self.weights.items()
            if name.startswith("pretrained_model.")
        }
        self.config = DebertaV2Config.from_pretrained(path)
        self.encoder = DebertaV2Model(self.config).eval()
        self.encoder.load_state_dict(encoder)
        self.tokenizer = AutoTokenizer.from_pretrained(path)

    def ids(self, source: str, one: str, two: str, most: int, each: int) -> list[int]:
        def encode(text: str, limit: int) -> list[int]:
            found: list[int] = self.tokenizer.encode(text, max_length=limit, truncation=True)
            return found

        ids = encode("<|source|>" + source, most)
        left = (most + 2 * each - len(ids)) // 2
        return ids + encode("<|candidate1|>" + one, left) + encode("<|candidate2|>" + two, left)

    @torch.no_grad()
    def logit(self, source: str, one: str, two: str, most: int = 1224, each: int = 412) -> float:
        ids = self.ids(source, one, two, most, each)
        states_LH = self.encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]

        def at(mark: int) -> Tensor:
            return states_LH[ids.index(mark)]

        def head(candidate_H: Tensor) -> float:
            w = self.weights
            joined = torch.cat([at(self.config.source_prefix_id), candidate_H])
            hidden = torch.tanh(w["head_layer.1.weight"] @ joined + w["head_layer.1.bias"])
            return float(w["head_layer.4.weight"] @ hidden + w["head_layer.4.bias"])

        return head(at(self.config.cand1_prefix_id)) - head(at(self.config.cand2_prefix_id))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_checkpoint_has_the_published_layout(path: str) -> None:
    config = json.loads((Path(path) / "config.json").read_text())
    assert config["architectures"] == ["DebertaV2PairRM"]
    assert {"source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "n_tasks"} <= set(config)
    names = set(load_file(f"{path}/model.safetensors"))
    heads = {f"head_layer.{i}.{part}" for i in (1, 4) for part in ("weight", "bias")}
    assert {name for name in names if name.startswith("head_layer")} == heads
    assert all(name.startswith(("pretrained_model.", "head_layer.")) for name in names)


def test_a_group_is_compared_as_by_hand_in_both_orders(path: str) -> None:
    hand, texts = ByHand(path), ANSWERS[:3]
    found_KK = np.array(scorer(TARGET, model=path).score(request(*texts)))
    said = {pair: sigmoid(hand.logit(QUESTION, *pair)) for pair in permutations(texts, 2)}
    for i, one in enumerate(texts):
        for j, two in enumerate(texts):
            wanted = 0.5 if i == j else (said[one, two] + 1 - said[two, one]) / 2
            assert found_KK[i, j] == pytest.approx(wanted, abs=1e-5)
    assert abs(found_KK - 0.5).max() > 0.01


def test_padding_makes_no_difference(path: str) -> None:
    one_by_one = np.array(scorer(TARGET, model=path, rows=1).score(request()))
    assert np.allclose(one_by_one, scorer(TARGET, model=path).score(request()), atol=1e-5)


def logit(path: str, source: str, one: str, two: str, most: int, each: int) -> float:
    ranker = PairRM(path, Path(path), "cpu", "float32", source=most, candidate=each)
    return ranker.logits([(request(one, two, question=source), one, two)], 8)[0]


def test_a_short_prompt_leaves_its_room_to_the_candidates(path: str) -> None:
    hand, long = ByHand(path), "a long reply " * 6
    for source in ("short", "what is the sum of one two three four five six ?"):
        ids = hand.ids(source, long, "bad", 10, 6)
        assert len(ids) <= 22
        found = logit(path, source, long, "bad", 10, 6)
        assert found == pytest.approx(hand.logit(source, long, "bad", 10, 6), abs=1e-5)


def test_several_messages_are_one_source_with_their_roles(path: str) -> None:
    messages = (("user", "one"), ("assistant", "two"), ("user", "three"))
    asked = request("four", "five", messages=messages)
    ranker = PairRM(path, Path(path), "cpu", "float32", source=1224, candidate=412)
    source = "USER: one\nASSISTANT: two\nUSER: three"
    wanted = ByHand(path).logit(source, "four", "five")
    assert ranker.logits([(asked, "four", "five")], 8)[0] == pytest.approx(wanted, abs=1e-5)


def test_marks_within_a_text_are_blanked(path: str) -> None:
    wild = "it is <|candidate2|> five [SEP] <|source|>"
    found = logit(path, QUESTION, wild, "bad", 1224, 412)
    assert found == pytest.approx(logit(path, QUESTION, "it is five", "bad", 1224, 412), abs=1e-5)


def test_a_tokenizer_of_another_model_and_missing_weights_are_refused(
    path: str, tmp_path: Path
) -> None:
    def broken(name: str, change: Any) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for file in Path(path).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        change(folder)
        return str(folder)

    def renumber(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"cand1_prefix_id": 1}))

    def behead(folder: Path) -> None:
        from safetensors.torch import save_file

        file = folder / "model.safetensors"
        kept = {k: v for k, v in load_file(file).items() if not k.startswith("head_layer.4")}
        save_file(kept, file, metadata={"format": "pt"})

    with pytest.raises(ConfigError, match=r"scorer.options.model.*does not know <\|candidate1\|>"):
        scorer(TARGET, model=broken("tokens", renumber))
    with pytest.raises(ConfigError, match=r"scorer.options.model.*lacks weights: head_layer.4"):
        scorer(TARGET, model=broken("head", behead))
