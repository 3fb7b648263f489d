"""A run directory as it is written while a run goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from sppo.launch import run_dir as run_dirs

SAMPLE = {
    "step": 3, "stream": "train", "uid": "train-000000003", "why": ["best"],
    "messages": [{"role": "user", "content": "What is 7 - 4?"}],
    "completions": ["Two.", "It is 3."],
    "of": 4, "rewards": [0.0, 1.0], "preferences": None, "details": None, "lengths": [2, 4],
    "finish_reasons": ["stop", "stop"], "versions": [["e:1"], ["e:1"]], "generator": "generator-0",
}  # fmt: skip


def record(n: int, **changes: Any) -> dict[str, Any]:
    usual = {
        "step": n, "epoch": "e", "wall_s": 5.0 * n, "wait_s": 1.0, "reward_mean": n / 100,
        "held_out": 0.25, "mismatch": 0.01 + n / 1000, "mismatch_probe": None,
        "generated_length_mean": 12.0 + n % 3, "staleness_mean": 1.0, "staleness_max": 2,
    }  # fmt: skip
    return usual | changes


def generator(**changes: Any) -> dict[str, Any]:
    usual = {
        "role": "generator", "life": "g", "host": "here", "applied": "e:3", "progress": 1,
        "tokens": 1000, "busy_s": 10.0, "ready_s": 20.0, "in_hand": 5, "scoring": 2, "refusals": 0,
    }  # fmt: skip
    return usual | changes


def members(**changes: Any) -> dict[str, Any]:
    quiet = {"applied": "", "tokens": 0, "in_hand": 0, "scoring": 0}
    return {
        "generator-0": generator(**changes),
        "learner-0": generator(role="learner", life="l", **quiet) | {"in_hand": 16},
        "scorer-0": generator(role="scorer", life="s", busy_s=0.1, **quiet),
    }


def status(run_dir: Path, *, updated: float | None = None, **changes: Any) -> None:
    usual = {
        "phase": "training", "step": 3, "steps": 60, "seconds_left": 285.0, "by": "up",
        "updated": time.time() if updated is None else updated, "members": members(),
        "depths": {"todo": 3, "eval": 0, "leased": 5, "queued": 20, "dead": 0, "bytes": 1},
    }  # fmt: skip
    run_dirs.write_status(run_dir, usual | changes)


def die(run_dir: Path, seconds: float = 330.0) -> None:
    """The process that wrote the status is gone."""
    path = run_dir / "status.json"
    found = json.loads(path.read_text())
    gone = {"pid": 2**22 + 1, "pid_created": 0.0, "updated": time.time() - seconds}
    path.write_text(json.dumps(found | gone))


def append(path: Path, *records: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in records)


def going_on(run_dir: Path, steps: int = 3) -> Path:
    """One that is up."""
    (run_dir / "config.toml").write_text("")
    append(run_dir / "metrics.jsonl", *(record(n) for n in range(1, steps + 1)))
    append(
        run_dir / "events.jsonl",
        {"time": time.time() - 90, "kind": "eval", "record": {
            "step": 0, "accuracy": 0.25, "win_rate": None, "interval": [0.2, 0.3], "n": 200}},
        {"time": time.time() - 3.5 * 3600, "kind": "warning", "topic": "truncation",
         "text": "step 2: cut"},
    )  # fmt: skip
    append(run_dir / "samples.jsonl", SAMPLE)
    status(run_dir)
    return run_dir
