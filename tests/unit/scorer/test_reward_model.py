"""Reward models: a whole forward against one by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, LlamaModel

from examples.scorers import tiny_models
from sppo.errors import ConfigError
from sppo.scorer.calls import OptionError, make
from sppo.scorer.reward_model import RewardModel
from tests.unit.scorer.asking import ANSWERS, QUESTION, made, request, scorer

TARGET = "sppo.scorer.reward_model:RewardModel"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory.mktemp("models") / "rm", tiny_models.reward_model)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three labels, no chat template."""

    def maker(folder: Path) -> None:
        fast = tiny_models.tokenizer(folder, specials=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
        config = BertConfig(
            vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=48, max_position_embeddings=24, initializer_range=0.2,
            id2label={0: "bad", 1: "good", 2: "funny"},
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(str(folder))

    return made(tmp_path_factory.mktemp("models") / "bert", maker)


@torch.no_grad()
def by_hand(path: str, text: str, cut: slice = slice(None)) -> float:
    """The score of the last token's state of the conversation in the model's own template."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    messages = [("user", QUESTION), ("assistant", text)]
    chat = "".join(f"<|im_start|>{role} {content}<|im_end|>" for role, content in messages)
    ids = tokenizer(chat, add_special_tokens=False)["input_ids"][cut]
    states_LH = LlamaModel.from_pretrained(path)(torch.tensor([ids])).last_hidden_state[0]
    return float(load_file(f"{path}/model.safetensors")["score.weight"][0] @ states_LH[-1])


def test_a_group_is_scored_as_by_hand_whatever_is_padded(path: str) -> None:
    wanted = [by_hand(path, text) for text in ANSWERS]
    for rows in (1, 3, 32):
        found = scorer(TARGET, model=path, rows=rows).score(request())
        assert found["rewards"] == pytest.approx(wanted, abs=1e-4)
    assert max(wanted) - min(wanted) > 0.1
    assert [each["cut"] for each in found["details"]] == [False] * 4


def test_groups_are_scored_together_as_they_are_alone(path: str) -> None:
    one = scorer(TARGET, model=path)
    groups = [request(), request("bad", uid="v", question="to be or not ?"), request("good", "bad")]
    for group, answer in zip(groups, one.score(groups), strict=True):
        assert answer["rewards"] == pytest.approx(one.score(group)["rewards"], abs=1e-4)
        assert len(answer["details"]) == len(group.completions)


@pytest.mark.parametrize(("truncate", "cut"), [("left", slice(-9, None)), ("right", slice(9))])
def test_a_conversation_that_is_too_long_loses_one_end(
    path: str, truncate: str, cut: slice
) -> None:
    found = scorer(TARGET, model=path, max_length=9, truncate=truncate).score(request())
    wanted = [by_hand(path, text, cut) for text in ANSWERS]
    assert found["rewards"] == pytest.approx(wanted, abs=1e-4)
    assert found["details"][0] == {"tokens": 9, "cut": True}


def test_the_whole_prompt_is_read(path: str) -> None:
    messages = (("system", "short"), ("user", "one ?"), ("assistant", "two"), ("user", QUESTION))
    one = scorer(TARGET, model=path)
    whole = one.score(request(messages=messages))["rewards"]
    assert whole != pytest.approx(one.score(request())["rewards"], abs=1e-3)


def test_without_a_chat_template_prompt_and_completion_are_a_pair(bert: str) -> None:
    found = scorer(TARGET, model=bert, label="good").score(request())
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model = BertForSequenceClassification.from_pretrained(bert).eval()
    for text, reward in zip(ANSWERS, found["rewards"], strict=True):
        row = tokenizer(QUESTION, text, truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            assert reward == pytest.approx(float(model(**row).logits[0, 1]), abs=1e-4)
    assert scorer(TARGET, model=bert, label=1).score(request()) == found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"scorer.options.label: say which.*it has 3: 0 \(bad\), 1 \(good\), 2 \(funny\)"),
        ({"label": "great"}, "scorer.options.label = 'great': no such output"),
        ({"label": 3}, "scorer.options.label = 3: no such output"),
        ({"label": 0, "max_length": 99}, "scorer.options.max_length = 99: the model takes 24"),
        ({"label": 0, "device": "cuda:7"}, "scorer.options.device = 'cuda:7'"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_by_name(
    bert: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        scorer(TARGET, model=bert, **options)


def test_a_model_that_is_no_classifier_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    plain = made(tmp_path / "llama", lambda p: tiny_models.llama(p, "LlamaForCausalLM") and None)
    with pytest.raises(ConfigError, match="LlamaForCausalLM is no classifier"):
        RewardModel(model=plain)
    with pytest.raises(OptionError, match=r"scorer.options.model: reward-model needs it"):
        make("reward-model", RewardModel, {})
    with pytest.raises(OptionError, match=r"scorer.options.batch = 0 must be at least 1"):
        make("reward-model", RewardModel, {"model": "a/b", "batch": 0})
