"""The laboratory: every statement of docs/objective.md holds, and the command says so to people and machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sppo_cli.main import app
from typer.testing import CliRunner

from sppo.bench import objective
from sppo.bench.checks import at_most


@pytest.mark.parametrize("name", objective.EXPERIMENTS)
def test_the_statement_holds_for_another_seed_than_the_documented_one(name: str) -> None:
    finding = objective.EXPERIMENTS[name](1)
    assert finding.check.name == name
    assert finding.check.ok, finding.check


def test_constants_for_the_partition_miss_the_fixed_point_by_orders_of_magnitude() -> None:
    errors = objective.fixed_point(0).series["max |log π − log π*| by sampler"]
    for sampler in errors.values():
        assert sampler["1/2 for the partition"] > 1e4 * max(sampler["exact partition"], sampler["centered"])


def test_a_self_normalised_soft_mean_is_biased_and_the_bias_falls_with_k() -> None:
    bias = objective.on_policy_gradient(0).series["relative bias of softmean"]
    assert bias["w = ρ"] == sorted(bias["w = ρ"], reverse=True)
    assert bias["w = ρ"][-1] < 0.1 < 0.5 < bias["w = ρ"][0]
    assert min(bias["w = 1"]) > 0.5  # no number of completions makes up for missing weights


def test_a_value_that_is_not_a_number_is_never_within_its_bar() -> None:
    assert not at_most("x", float("nan"), 1.0, "nats").ok


def test_the_command_writes_plots_and_one_json_object(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "objective", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert [c["name"] for c in answer["checks"]] == list(objective.EXPERIMENTS)
    assert all(set(c) == {"name", "value", "unit", "bar", "ok"} and c["ok"] for c in answer["checks"])
    for path in answer["plots"]:
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "objective.json").read_text()) == answer
