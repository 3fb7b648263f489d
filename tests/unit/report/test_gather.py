"""What a run's directory says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sppo.config.shown import HIDDEN
from sppo.errors import ConfigError
from sppo.metrics import METRICS
from sppo.report import gather
from tests import written_runs


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return written_runs.make(tmp_path / "run", steps=5)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        gather.run(tmp_path)


def test_metrics_are_columns_of_numbers(run: Path) -> None:
    columns = gather.run(run)["metrics"]
    assert columns["step"] == [1, 2, 3, 4, 5]
    assert columns["mismatch"] == [0.03, None, None, None, None]
    assert columns["whole_s"] == [None, 10, 10, 10, 10]
    assert columns["trained_tokens_s"][1] == pytest.approx(columns["tokens"][1] / 10, rel=1e-5)
    assert not columns.keys() & {"tickets", "epoch", "skipped", "kl"}


def test_a_run_that_died_with_figures_that_are_none(tmp_path: Path) -> None:
    found = gather.run(written_runs.broken(tmp_path / "run"))
    assert found["state"] == "died"
    assert found["metrics"]["loss"][2] is None
    assert found["metrics"]["step"] == [1, 2, 3]
    json.loads(gather.as_json(found))
    assert gather.kept_samples(tmp_path / "run") == []


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, "lost"])
def test_a_run_of_which_no_figure_is_a_number(run: Path, nothing: Any) -> None:
    records = [dict.fromkeys(METRICS, nothing) | {"step": n, "epoch": "a"} for n in (1, 2)]
    written_runs.lines(run / "metrics.jsonl", records)
    found = gather.run(run)
    assert found["metrics"] == {"step": [1, 2]}
    gather.as_json(found)


@pytest.mark.parametrize(
    ("summary", "state"),
    [
        (None, "died"),
        ({"finished": False, "steps": 3}, "died"),
        ({"finished": False, "steps": 5}, "stopped"),
        ({"finished": True, "steps": 5}, "finished"),
    ],
)
def test_what_ended_without_saying_so_died(
    run: Path, summary: dict[str, Any] | None, state: str
) -> None:
    path = run / "summary.json"
    path.unlink() if summary is None else path.write_text(json.dumps(summary))
    assert gather.run(run)["state"] == state


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = written_runs.make(tmp_path / "run", steps=1, ended=False)
    for name in ("metrics", "events", "roles", "samples"):
        (run / f"{name}.jsonl").unlink()
    found = gather.run(run)
    assert (found["metrics"], found["evaluations"], found["happened"]) == ({}, [], [])
    assert found["timeline"]["lanes"] == {}


def test_evaluations_of_a_line_that_was_given_up_are_left_out() -> None:
    def evaluated(step: int, rate: float | None = None) -> dict[str, Any]:
        record = {"step": step, "accuracy": None if rate else 0.5, "win_rate": rate, "n": 9}
        return {"kind": "eval", "record": record | {"interval": [0.1, 0.9]}}

    events = [evaluated(0), evaluated(20), evaluated(40), {"kind": "resume", "step": 30}]
    found = gather.evaluations([*events, evaluated(50, 0.75)])
    assert [(each["step"], each["value"]) for each in found] == [(0, 0.5), (20, 0.5), (50, 0.75)]
    assert (found[2]["low"], found[2]["high"]) == (0.1, 0.9)


def test_without_events_evaluations_are_those_of_the_metrics(run: Path) -> None:
    (run / "events.jsonl").unlink()
    held = {"held_out_low": 0.1, "held_out_high": 0.3}
    records = [{"step": n, "step_s": 1.0, "held_out": 0.2 if n < 3 else 0.25, **held}
               for n in range(1, 5)]  # fmt: skip
    written_runs.lines(run / "metrics.jsonl", records)
    assert [(e["step"], e["value"]) for e in gather.run(run)["evaluations"]] == [
        (1, 0.2), (3, 0.25),
    ]  # fmt: skip


def test_what_happened_is_said_in_words(run: Path) -> None:
    happened = gather.run(run)["happened"]
    assert [each["kind"] for each in happened] == ["warning", "dead", "restart"]
    assert happened[1]["text"] == "train-000000003: the scorer refused it"
    events = [
        {"kind": "sync", "step": 3, "failures": []},
        {"kind": "sync", "step": 4, "failures": ["generator-1: no answer"]},
        {"kind": "refusal", "uid": "", "reason": "too long", "count": 3},
        {"kind": "checkpoint", "step": 20, "nbytes": 5, "held_s": 0.12345},
    ]
    assert [each["text"] for each in gather.happened(events)] == [
        "weight sync of step 4: generator-1: no answer",
        "too long (3 times)",
        "step 20, nbytes 5, held_s 0.1235",
    ]


def test_no_secret_is_shown(run: Path) -> None:
    (run / "config.toml").write_text(
        'name = "x"\n[broker]\nurl = "rediss://me:word@host:1/0"\n[scorer.options]\n'
        'api_key = "word"\nAPI-token = "word"\n[scorer.judge]\nurl = "https://word@host/v1"\n'
        'headers = [{secret = "word"}]\n[sampling]\nmax_tokens = 16\n',
        encoding="utf-8",
    )
    found = gather.configuration(run)
    assert "word" not in json.dumps(found)
    assert found["broker.url"] == "rediss://host:1/0"
    assert found["sampling.max_tokens"] == 16
    assert found["scorer.options.api_key"] == HIDDEN


def test_samples_have_scores(run: Path) -> None:
    compared = written_runs.sample(6, 0, lambda: "x", completions=2)
    compared |= {"rewards": None, "preferences": [[0.5, math.nan], [0.25, 0.5]]}
    written_runs.lines(run / "samples.jsonl", [written_runs.sample(5, 0, lambda: "x"), compared])
    rewarded, by_preference = gather.kept_samples(run)
    assert rewarded["scores"] == rewarded["rewards"]
    assert by_preference["scores"] == [None, 0.25]


def test_versions_are_those_of_the_newest_life(run: Path) -> None:
    assert gather.run(run)["versions"] == {"sppo": "0.2", "torch": "2.13.0"}
    assert gather.versions([]) == {}
