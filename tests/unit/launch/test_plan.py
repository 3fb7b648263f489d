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


def test_the_plan_says_what_a_judge_will_be_asked_for() -> None:
    judge = ["scorer.judge.url=http://j:1", "scorer.judge.model=m", "scorer.judge.max_calls=5000"]
    lines = plan.describe(config.load("ultrafeedback", judge), Path("runs/x"))
    assert lines[-1] == (
        "judge             m at http://j:1; 20 calls a group, 1,280 a step, 614,400 in 480 steps; "
        "it stops after 5,000"
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


def test_where_each_role_would_go() -> None:
    cluster = config.load("cluster")
    assert plan.placed(cluster, cuda=True) == [
        "placement         2 machines (as few as hold it; --machines names yours)",
        "  machine 1: 8 GPUs              learner-0 (8 GPUs)",
        "  machine 2: 8 GPUs              generator-0..7 (1 GPU)",
        "  anywhere                       scorer-0..1",
    ]
    spread = "\n".join(plan.placed(cluster, cuda=True, machines="4x4"))
    assert spread.count("learner-0 (4 GPUs)") == 2
    assert "generator-4..7" in spread
    with pytest.raises(ConfigError, match=r"Ray has 8 \(machine 1: 4 GPUs; machine 2: 4 GPUs\)"):
        plan.placed(cluster, cuda=True, machines="2x4")


def test_memory_is_counted_with_the_ranks_that_the_placement_puts_on_a_machine() -> None:
    cluster = config.load("cluster")
    for machines, each in (("2x8", 8), ("4x4", 4), ("12x2", 2)):
        assert plan.ranks_each(cluster, cuda=True, machines=machines) == each
    assert plan.ranks_each(config.load("quickstart"), cuda=False) == 1
    # Each machine's host memory holds what its own ranks copy for a checkpoint
    whole, half = (plan.counted(cluster, gpu="h100", ranks_each=n).figures() for n in (8, 4))
    assert whole != half
    assert plan.counted(cluster, gpu="h100").figures() == whole


def test_on_this_machine_what_it_has_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    eight = config.load("eight-gpus")
    assert "none of its GPUs is seen here" in plan.placed(eight, cuda=True)[0]
    monkeypatch.setattr(plan, "gpus_here", lambda: 4)
    with pytest.raises(ConfigError, match=r"asks for 8 GPUs .* and Ray has 4"):
        plan.placed(eight, cuda=True)
    alone = plan.placed(config.load("quickstart"), cuda=False)
    assert alone == [
        "placement         1 machine",
        "  anywhere                       scorer-0, generator-0, learner-0",
    ]
