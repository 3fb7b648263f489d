"""What `bench loop` makes of two runs' files, what it asks of each side, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sppo_cli.main import app
from typer.testing import CliRunner

from sppo import config as settings
from sppo.bench import loop, trl_peer
from sppo.bench.loop import Measured, Plan, Round
from sppo.bench.sides import ACCURACY, WARM_UP, Reached, Side
from sppo.errors import ConfigError, SppoError
from sppo.tasks import questions

CONFIG = settings.load("quickstart", ["compute=float32"], environment=False)
EVALUATIONS = {5: 0.2, 10: ACCURACY, 15: 0.5}

# A side whose process writes what a run would; how it is called stands in arguments.json.
STUB = """
import json, pathlib, sys, time
i, option = next((i, a) for i, a in enumerate(sys.argv) if "run-dir" in a)
place = pathlib.Path(option.partition("=")[2] or sys.argv[i + 1])
(place / "arguments.json").write_text(json.dumps(sys.argv[1:]))
steps = int(next(a for a in sys.argv if "learner.steps" in a).rpartition("=")[2])
with (place / "metrics.jsonl").open("w") as file:
    for n in range(1, steps + 1):
        file.write(json.dumps({"step": n, "wall_s": 10.0 + 2.0 * n}) + "\\n")
(place / "events.jsonl").write_text(
    json.dumps({"kind": "phase", "phase": "waiting for the first batch", "time": time.time()})
    + "\\n"
)
"""


def written(
    folder: Path, ends: Sequence[float], accuracies: Mapping[int, float] | None = None
) -> Side:
    """A side that has run: steps ended at these seconds, and its first batch was waited for at
    100.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": n, "wall_s": end}) for n, end in enumerate(ends, start=1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    events: list[dict[str, Any]] = [
        {"time": 70.0, "kind": "phase", "phase": "loading the model"},
        {"time": 90.0, "kind": "eval", "record": {"step": 0, "accuracy": 0.02}},
        {"time": 100.0, "kind": "phase", "phase": "waiting for the first batch"},
    ]
    for step, accuracy in (accuracies or {}).items():
        events.append(
            {
                "time": 100.0 + 8 * step,
                "kind": "eval",
                "record": {"step": step, "accuracy": accuracy},
            }
        )
    (folder / "events.jsonl").write_text("\n".join(json.dumps(e) for e in events))
    return Side("sppo", CONFIG, [], [], folder)


def measured(ours: float = 2.0, theirs: float = 12.0) -> Measured:
    sides = {"sppo": [ours, ours], "trl": [theirs, theirs]}
    rounds = [Round(side=s, startup_s=20.0, step_s=each, others=0.0) for s, each in sides.items()]  # type: ignore[arg-type]
    summaries: Any = {r.side: loop.summary([r], 64) for r in rounds}
    return Measured(
        compute="bfloat16", fast_compute="bfloat16", threads=2, cpu=["avx512f"], versions={},
        overrides=[],
        completions_per_step=64, not_counted={"first": WARM_UP, "last": 1}, rounds=rounds,
        sides=summaries,
        ratio=summaries["sppo"].samples_per_s / summaries["trl"].samples_per_s, to_accuracy=[],
    )  # fmt: skip


def test_the_first_steps_and_those_beyond_the_counted_are_left_out(tmp_path: Path) -> None:
    run = written(tmp_path, [30.0, 40.0, 43.0, 47.0, 52.0, 53.0])
    assert run.counted(3) == [3.0, 4.0, 5.0]
    with pytest.raises(SppoError, match="6 steps instead of 8"):
        run.counted(6)


def test_seconds_to_accuracy_begin_with_the_first_batch(tmp_path: Path) -> None:
    # Given a run that reached it at step 10, and one that did not
    high = written(tmp_path / "high", [1.0], EVALUATIONS).reached()
    low = written(tmp_path / "low", [1.0], {5: 0.1, 10: 0.3}).reached()
    # Then
    assert high == Reached(side="sppo", seconds=80.0, step=10, accuracy=ACCURACY)
    assert low == Reached(side="sppo", seconds=None, step=10, accuracy=0.3)
    with pytest.raises(SppoError, match="no evaluation after a step"):
        written(tmp_path / "none", [1.0]).reached()


def test_a_sides_rate_is_that_of_all_its_counted_steps() -> None:
    rounds = [
        Round(side="trl", startup_s=s, step_s=each, others=0.0)
        for s, each in ((10.0, [1.0, 3.0]), (30.0, [4.0]))
    ]
    found = loop.summary(rounds, 64)
    assert (found.samples_per_s, found.startup_s) == (24.0, 20.0)
    assert found.step_s == pytest.approx(8 / 3)
    assert found.step_s_sd == pytest.approx(1.5275, abs=1e-4)


def test_the_ratio_is_judged_for_the_preset_in_the_processors_own_format() -> None:
    def verdict(found: Measured) -> tuple[float, bool | None]:
        check = loop.checks(found)[0]
        return check.value, check.ok

    assert verdict(measured()) == (6.0, True)
    assert verdict(measured(ours=3.0)) == (4.0, False)
    assert verdict(replace(measured(), fast_compute="float32")) == (6.0, None)
    assert verdict(replace(measured(), overrides=["sampling.max_tokens=8"])) == (6.0, None)
    assert verdict(replace(measured(), overrides=["compute=bfloat16"])) == (6.0, True)


@pytest.mark.parametrize(("ours", "theirs", "ok"), [(300.0, 900.0, True), (300.0, 200.0, False)])
def test_seconds_to_accuracy_are_compared_where_both_reached_it(
    ours: float, theirs: float, ok: bool
) -> None:
    mine = Reached(side="sppo", seconds=ours, step=40, accuracy=0.4)
    others = Reached(side="trl", seconds=theirs, step=40, accuracy=0.4)
    both = loop.checks(replace(measured(), to_accuracy=[mine, others]))
    assert (both[1].value, both[1].bar, both[1].ok) == (ours, theirs, ok)
    for found in ([mine], [mine, replace(others, seconds=None)]):
        assert len(loop.checks(replace(measured(), to_accuracy=found))) == 1


def test_our_run_gets_the_users_settings_and_ends_with_what_was_planned(tmp_path: Path) -> None:
    # Given a command that only writes down how it was called
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    run = Side("sppo", CONFIG, ["seed=3"], [sys.executable, str(stub)], tmp_path / "run")
    # When
    run.train(7)
    # Then
    called = json.loads((tmp_path / "run" / "arguments.json").read_text())
    assert called[:2] == ["up", "quickstart"]
    assert [a for a in called if a.startswith("--set=")] == [
        "--set=seed=3", "--set=learner.steps=7", "--set=learner.checkpoint_every=1000000",
        "--set=learner.device=cpu",
        "--set=eval.every_steps=1000000", "--set=compute=float32", "--set=task.held_out=0",
    ]  # fmt: skip
    assert run.counted(5) == [2.0] * 5
    assert 0 <= run.startup_s < 20


@pytest.mark.parametrize(
    ("end", "said", "kind"),
    [
        ("sys.exit(1)", "exit code 1", SppoError),
        ("sys.exit(2)", "exit code 2", ConfigError),
        ("os.kill(os.getpid(), 9)", "SIGKILL", SppoError),
    ],
)
def test_a_side_that_fails_ends_the_benchmark_with_its_last_words(
    end: str, said: str, kind: type, tmp_path: Path
) -> None:
    fails = f"import os, sys; print('no room left', flush=True); {end}"
    run = Side("sppo", CONFIG, [], [sys.executable, "-c", fails], tmp_path / "run")
    with pytest.raises(SppoError, match=rf"ended with {said};.*\n.*no room left") as found:
        run.train(3)
    assert type(found.value) is kind


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
    order = found.training_order(CONFIG.seed, 0)
    assert [r["prompt"][0]["content"] for r in rows[:20]] == [
        found.train[i].text for i in order[:20]
    ]
    answer = found.train[order[0]].data["answer"]
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


def test_results_of_another_benchmark_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "loop.json").write_text("{}")
    done = CliRunner().invoke(app, ["bench", "loop", "--out", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    assert "not empty" in str(done.exception)
