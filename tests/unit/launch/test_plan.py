"""What `--dry-run` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError
from sppo.launch import plan
from tests import published


@pytest.mark.parametrize("preset", config.presets())
def test_every_preset_can_be_planned_without_a_gpu(preset: str) -> None:
    text = "\n".join(plan.describe(config.load(preset), Path("runs/x")))
    assert "tickets in flight" in text
    assert "broker memory" in text


def test_the_plan_counts_tickets_and_bytes() -> None:
    text = "\n".join(
        plan.describe(config.load("quickstart", ["generator.replicas=3"]), Path("runs/x"))
    )
    assert "tickets in flight 16: 8 in use and 1 batches ahead" in text
    assert "3 × vllm" in text
    # 8 completions of 16 tokens, 8 bytes each, and a prompt of 128 tokens of 4 bytes
    assert "groups of at most 1.5 KiB, 24.0 KiB in flight" in text


def test_the_plan_says_what_is_not_on_this_disk_and_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "built"))
    lines = plan.describe(config.load("ultrafeedback"), Path("runs/x"))
    told = [line for line in lines if line.startswith("not on this disk")]
    assert len(told) == 2
    assert lines[-1].endswith("scorer.judge.url and scorer.judge.model")
    assert told[0].endswith("hf download Qwen/Qwen2.5-1.5B-Instruct")
    assert told[1].endswith("hf download trl-lib/ultrafeedback-prompt --repo-type dataset")
    # What is there is not told
    (tmp_path / "hub" / "models--Qwen--Qwen2.5-1.5B-Instruct" / "snapshots").mkdir(parents=True)
    published.keep(tmp_path / "hub")
    assert not any(
        "not on this disk" in line
        for line in plan.describe(config.load("ultrafeedback"), Path("runs/x"))
    )


def test_the_plan_tells_the_sources_of_a_mixture_and_what_is_held_out() -> None:
    task = ['task.name=[{name="jsonl:a", weight=2}, {name="jsonl:b"}]', "task.held_out=csv:t.csv"]
    text = "\n".join(plan.describe(config.load("paper", task), Path("runs/x")))
    assert "2 × jsonl:a + 1 × jsonl:b, all of csv:t.csv held out" in text
    assert "no file t.csv; put it there" in text


def test_what_it_takes_is_counted_with_it() -> None:
    found = plan.counted(config.load("math-7b"), gpu="h100")
    assert found.refusals == ()
    with pytest.raises(ConfigError, match=r"sampling\.max_tokens = 40000 need .*: lower them"):
        plan.counted(config.load("math-7b", ["sampling.max_tokens=40000"]), gpu="h100")
