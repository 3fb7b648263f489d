"""A step again, of runs with a tiny model and a deterministic engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sppo import config
from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.generators.fake import VOCABULARY
from sppo.learner import replay
from tests import makers
from tests.unit.learner.test_assemble import Life, configuration

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "iterations": {
        "anchor": "iteration", "iteration_steps": 4, "mini_batches": 2, "kl_coef": 0.1,
        "reference_every": 1, "target": "half",
    },
}  # fmt: skip
Runs = dict[str, tuple[Path, RunConfig]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of six steps, with a checkpoint after every third batch."""
    folder = tmp_path_factory.mktemp("replay")
    model = makers.tiny_model(folder / "model", vocabulary=VOCABULARY)
    makers.tiny_tokenizer(Path(model), vocabulary=VOCABULARY)
    questions = [{"question": f"w{i} w{i + 1}", "answer": "1"} for i in range(60)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    made = {}
    for name, settings in CASES.items():
        given = configuration(
            model, f"jsonl:{folder / 'questions.jsonl'}", eval_every=9, **settings
        )
        (run_dir := folder / name).mkdir()
        (run_dir / "config.toml").write_text(config.to_toml(given), encoding="utf-8")
        Life(given, run_dir).run()
        made[name] = (run_dir, given)
    return made


def steps_since_a_checkpoint(found: dict[str, Any]) -> tuple[str, int]:
    return found["from"].rpartition("-")[0] or found["from"], found["steps_taken"]


@pytest.mark.parametrize(
    ("name", "step", "since"),
    [
        ("plain", 2, ("the base model", 2)),
        ("plain", 4, ("step-000003", 1)),
        ("plain", 6, ("step-000003", 3)),
        ("iterations", 4, ("the base model", 4)),
        ("iterations", 6, ("step-000004", 2)),
    ],
)
def test_a_step_comes_out_as_it_was_recorded(
    runs: Runs, name: str, step: int, since: tuple[str, int]
) -> None:
    run_dir, given = runs[name]
    said: list[str] = []
    found = replay.replay(run_dir, given, step, said.append)
    assert said == [f"from {found['from']}: taking steps {step - since[1] + 1} to {step} ..."]
    assert steps_since_a_checkpoint(found) == since
    differing = [figure for figure in found["metrics"] if not figure["same"]]
    assert not differing
    figures = {figure["name"]: figure["again"] for figure in found["metrics"]}
    assert {"loss", "grad_norm", "weight_mean", "staleness_mean"} <= figures.keys()


def test_terms_add_up_to_the_steps_figures(runs: Runs) -> None:
    run_dir, given = runs["iterations"]
    found = replay.replay(run_dir, given, 6)
    figures = {figure["name"]: figure["again"] for figure in found["metrics"]}
    rows = [row for row in found["completions"] if row.get("trained")]
    assert sum(row["loss"] for row in rows) == pytest.approx(figures["loss"], rel=1e-5)
    mean = sum(row["delta"] for row in rows) / len(rows)
    assert mean == pytest.approx(figures["delta_mean"], rel=1e-4)
    for row in rows:
        tokens = row["tokens"]
        assert row["delta"] == pytest.approx(row["logprob"] - row["anchor"], abs=1e-4)
        assert len(tokens["logprob"]) == len(tokens["kl"]) == row["length"]
        assert row["kl"] == pytest.approx(sum(tokens["kl"]) / row["length"], rel=1e-5)
    json.dumps(found, allow_nan=False)


def test_every_completion_of_the_step_is_named_with_its_score(runs: Runs) -> None:
    run_dir, given = runs["plain"]
    found = replay.replay(run_dir, given, 4)
    names = [(row["uid"], row["completion"]) for row in found["completions"]]
    line = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[3])
    assert names == [(uid, k) for uid in line["tickets"] for k in range(3)]
    scores = [row["score"] for row in found["completions"]]
    assert sum(scores) / len(scores) == pytest.approx(0.5)  # mean preferences of whole groups


@pytest.fixture
def copy(runs: Runs, tmp_path: Path) -> tuple[Path, RunConfig]:
    run_dir, given = runs["plain"]
    return Path(shutil.copytree(run_dir, tmp_path / "run")), given


def test_what_was_not_kept_is_said(copy: tuple[Path, RunConfig]) -> None:
    run_dir, given = copy
    (run_dir / "groups" / "step-000005.groups").unlink()
    with pytest.raises(ConfigError, match=r"--step 5 was not kept: .* steps 1 to 6"):
        replay.find(run_dir, given, 5)
    with pytest.raises(ConfigError, match=r"step-000003-\w+, and the groups of step 5 after that"):
        replay.find(run_dir, given, 6)
    shutil.rmtree(run_dir / "groups")
    with pytest.raises(ConfigError, match=r"holds none \(learner.keep_groups = 20\)"):
        replay.find(run_dir, given, 4)


def test_a_damaged_checkpoint_is_named(copy: tuple[Path, RunConfig]) -> None:
    run_dir, given = copy
    (state,) = (run_dir / "checkpoints").glob("step-000003-*/state.json")
    state.write_text("{")
    with pytest.raises(ConfigError, match=r"state.json is damaged"):
        replay.find(run_dir, given, 4)


def test_groups_of_a_line_that_was_given_up_are_refused(copy: tuple[Path, RunConfig]) -> None:
    run_dir, given = copy
    path = run_dir / "metrics.jsonl"
    lines = [json.loads(line) | {"epoch": "another"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="a line of training that was given up"):
        replay.replay(run_dir, given, 4)


def test_a_step_that_was_never_over_is_taken_all_the_same(copy: tuple[Path, RunConfig]) -> None:
    run_dir, given = copy
    (run_dir / "metrics.jsonl").unlink()
    found = replay.replay(run_dir, given, 1)
    assert not found["recorded"]
    assert all(figure["recorded"] is None for figure in found["metrics"])


def test_figures_are_the_same_but_for_rounding() -> None:
    was = {"loss": 0.5, "lr": 1e-5, "kl": None, "entropy": 0.4, "step_s": 3.0}
    now = {"loss": 0.50001, "lr": 2e-5, "kl": None, "entropy": 0.4, "step_s": 4.0}
    found = {f["name"]: f["same"] for f in replay.compare(was, now, "float32")}
    assert found == {"loss": True, "lr": False, "kl": True, "entropy": True}
