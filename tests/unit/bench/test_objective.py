"""The laboratory: every statement of docs/objective.md holds, and the command says so to people and
machines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.bench import objective
from sppo.bench.checks import at_most


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command prints for another seed than the documented one."""
    folder = tmp_path_factory.mktemp("bench")
    done = CliRunner().invoke(
        app, ["bench", "objective", "--out", str(folder), "--seed", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    printed: dict[str, Any] = json.loads(done.stdout)
    assert json.loads((folder / "objective.json").read_text()) == printed
    return printed


def series(answer: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = answer["findings"][name]["series"]
    return found


def test_every_statement_holds(answer: dict[str, Any]) -> None:
    assert [c["name"] for c in answer["checks"]] == list(objective.EXPERIMENTS)
    assert all(
        set(c) == {"name", "value", "unit", "bar", "ok"} and c["ok"] for c in answer["checks"]
    )


def test_every_finding_has_its_plot(answer: dict[str, Any]) -> None:
    assert [Path(p).stem for p in answer["plots"]] == list(objective.EXPERIMENTS)
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in answer["plots"])


def test_constants_for_the_partition_miss_the_fixed_point_by_orders_of_magnitude(
    answer: dict[str, Any],
) -> None:
    for errors in series(answer, "fixed_point")["max |log π − log π*| by sampler"].values():
        assert errors["1/2 for the partition"] > 1e4 * max(
            errors["exact partition"], errors["centered"]
        )


def test_a_wrong_baseline_adds_something_off_policy(answer: dict[str, Any]) -> None:
    for norms in series(answer, "baseline_on_policy")["norm of what is added"].values():
        assert norms == sorted(norms)
        assert norms[-1] > 0.01


def test_a_self_normalised_soft_mean_is_biased_and_the_bias_falls_with_k(
    answer: dict[str, Any],
) -> None:
    bias = series(answer, "on_policy_gradient")["relative bias of softmean"]
    assert bias["w = ρ"] == sorted(bias["w = ρ"], reverse=True)
    assert bias["w = ρ"][-1] < 0.1 < 0.4 < bias["w = ρ"][0]
    assert min(bias["w = 1"]) > 0.4  # no number of completions makes up for missing weights


def test_the_average_of_self_play_nears_the_nash_mixture(answer: dict[str, Any]) -> None:
    assert all(
        away < 0.03 for away in series(answer, "duality_gap")["average iterate from nash"].values()
    )


def test_fewer_comparisons_add_variance_and_no_bias_unless_a_half_is_averaged_in(
    answer: dict[str, Any],
) -> None:
    found = series(answer, "partial_comparisons")
    assert found["comparisons"] == {"circular": [6, 12, 15], "anchors": [5, 9, 12, 14, 15]}
    for name, spread in found["standard deviation"].items():
        assert spread == sorted(spread, reverse=True)
        assert spread[-1] < 1e-12 < 0.01 < spread[-2]
        assert max(found["bias"][name]) < 1e-12
    for compare in found["comparisons"]:
        naive = found["bias"][f"{compare}, 1/2 averaged in"]
        assert naive[0] > 0.01
        assert naive == sorted(naive, reverse=True)


def test_a_value_that_is_not_a_number_is_never_within_its_bar() -> None:
    assert not at_most("x", float("nan"), 1.0, "nats").ok
