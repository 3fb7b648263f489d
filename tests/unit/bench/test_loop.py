"""What `bench loop` makes of two runs' files, what it asks of each side, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo import config as settings
from sppo.bench import loop
from sppo.bench.loop import Measured, Round
from sppo.bench.sides import ACCURACY, WARM_UP, Reached, Side
from sppo.errors import ConfigError

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


def test_results_of_another_benchmark_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "loop.json").write_text("{}")
    done = CliRunner().invoke(app, ["bench", "loop", "--out", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    assert "not empty" in str(done.exception)
