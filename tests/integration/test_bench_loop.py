"""`bench loop` in its smallest form: both sides take their steps, and the answer is made of what
they wrote.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CLI = str(Path(sys.executable).with_name("sppo-cli"))
SETTINGS = {
    "sampling.completions": 2,
    "learner.groups_per_step": 2,
    "generator.engine": "transformers",
    "scorer.mode": "inline",
}


@pytest.mark.timeout(400)
def test_both_sides_take_their_steps(small_model: str, tmp_path: Path) -> None:
    # Given a model that writes nonsense, and a batch of four completions
    sets = [
        f"--set={key}={value}" for key, value in (SETTINGS | {"model.name": small_model}).items()
    ]
    short = ["--steps=1", "--rounds=1", "--accuracy-steps=0"]
    # When
    done = subprocess.run(
        [CLI, "bench", "loop", "--json", "--out", str(tmp_path / "out"), *short, *sets],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    # Then
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [r["side"] for r in found["rounds"]] == ["sppo", "trl"]
    for each in found["rounds"]:
        (step_s,) = each["step_s"]
        assert found["sides"][each["side"]]["samples_per_s"] == pytest.approx(4 / step_s)
        assert 0 < step_s < each["startup_s"]
    steps = {
        side: len(
            (tmp_path / "out" / f"{side}-1" / "metrics.jsonl")
            .read_text(encoding="utf-8")
            .split("\n")
        )
        for side in found["sides"]
    }
    assert steps == {"sppo": 5, "trl": 4}  # lines end with a line break
    rates = [found["sides"][side]["samples_per_s"] for side in ("sppo", "trl")]
    (check,) = found["checks"]
    assert check["value"] == found["ratio"] == pytest.approx(rates[0] / rates[1])
    assert (check["name"], check["bar"], check["ok"]) == (
        "loop_vs_trl",
        5.0,
        None,
    )  # not the preset as it is
    assert json.loads((tmp_path / "out" / "loop.json").read_text(encoding="utf-8")) == found
