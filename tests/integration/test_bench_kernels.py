"""The kernel benchmark in its quick form: every way that is installed, its table, its JSON and its
plot.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.bench import kernels
from sppo.bench.kernel_ways import ACCURATE, FAST, FROM_LOGITS, FULL_BF16, FULL_FLOAT32, PEERS


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bench")
    arguments = ["bench", "kernels", "--device", "cpu", "--quick", "--json", "--out", str(folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (folder / "kernels.png").read_bytes().startswith(b"\x89PNG")
    printed: dict[str, Any] = json.loads(done.stdout)
    assert json.loads((folder / "kernels.json").read_text())["rows"] == printed["rows"]
    return printed


def test_every_way_is_measured_in_every_mode_or_has_a_reason(answer: dict[str, Any]) -> None:
    ways = {row["way"] for row in answer["rows"]}
    assert ways >= {ACCURATE, FAST, FROM_LOGITS, FULL_FLOAT32, FULL_BF16}
    assert ways | set(answer["missing"]) >= set(PEERS)
    assert all(
        reason.startswith(("not installed", "failed")) for reason in answer["missing"].values()
    )
    assert len(answer["rows"]) == len(ways) * len(kernels.MODES)
    assert all(row["low_s"] <= row["median_s"] <= row["high_s"] for row in answer["rows"])


def test_float32_logits_are_exact_and_rounded_ones_are_not(answer: dict[str, Any]) -> None:
    errors = {row["way"]: row["error_nats"] for row in answer["rows"]}
    assert (
        errors[ACCURATE] < 1e-5 < 1e-4 < min(errors[FAST], errors[FROM_LOGITS], errors[FULL_BF16])
    )
    assert [(c["name"], c["ok"]) for c in answer["checks"]] == [("logprob_error", True)]
