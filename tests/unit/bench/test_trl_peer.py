"""TRL gets the same work: batch, sampling, optimizer, questions, rule."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sppo.bench import loop, trl_peer
from sppo.bench.loop import Plan
from sppo.errors import ConfigError
from sppo.tasks import questions
from sppo.tasks.order import Order
from tests.unit.bench.test_loop import CONFIG


def test_trl_gets_the_same_batch_sampling_and_optimizer() -> None:
    given = trl_peer.arguments(CONFIG, 9, Path("out"))
    assert given["per_device_train_batch_size"] * given["gradient_accumulation_steps"] == 64
    same = (
        "num_generations",
        "max_completion_length",
        "temperature",
        "learning_rate",
        "max_grad_norm",
        "max_steps",
    )
    assert [given[k] for k in same] == [8, 16, 0.7, 1e-5, 1.0, 9]
    assert (given["adam_beta1"], given["adam_beta2"], given["weight_decay"]) == (0.9, 0.95, 0.0)


@pytest.mark.parametrize(("compute", "autocast"), [("float32", False), ("bfloat16", True)])
def test_trl_computes_in_the_runs_format_over_float32_weights(compute: str, autocast: bool) -> None:
    config = CONFIG.model_copy(update={"compute": compute})
    given = trl_peer.arguments(config, 9, Path("out"))
    assert (given["bf16"], given["model_init_kwargs"]["dtype"]) == (autocast, "float32")


def test_trl_gets_the_same_questions_in_the_same_order_and_the_same_rule() -> None:
    found = questions.load(CONFIG.task, CONFIG.seed)
    rows = trl_peer.rows(CONFIG, found)
    order = Order(found, CONFIG.seed)
    assert [r["prompt"][0]["content"] for r in rows[:20]] == [
        order.question(i).text for i in range(20)
    ]
    answer = order.question(0).data["answer"]
    said = [[{"role": "assistant", "content": text}] for text in (f"It is {answer}.", f"{answer}1")]
    rewards = trl_peer.reward(CONFIG)(
        [rows[0]["prompt"]] * 2, said, data=[rows[0]["data"]] * 2, answer=None
    )
    assert rewards == [1.0, 0.0]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("learner.steps=5", "--steps"),
        ("eval.every_steps=1", "chooses eval.every_steps itself"),
        ("scorer.name=closest-number", "scorer.name = 'closest-number'"),
        ("scorer.name=mine:score", "scorer.name = 'mine:score'"),
        ("learner.mini_batches=2", "learner.mini_batches = 2"),
        ("sampling.top_p=0.9", "top_p"),
    ],
)
def test_what_the_comparison_cannot_follow_is_refused(override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        loop.resolved([override])


def test_without_trl_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "trl" else find(name)
    )
    with pytest.raises(ConfigError, match=r"not installed: .*trl.*pip install 'sppo\[bench\]'"):
        loop.measure(Plan(), [], tmp_path, print)
