"""Run directories without a run: what is written down, made up."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sppo import config
from sppo.metrics import METRICS

HOSTILE = (
    "</script><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
)
EPOCH = "a" * 32
STEP_S = 10.0
BEGAN = 1_800_000_000.0

Text = Callable[[], str]
"""What is said next."""


def lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def record(step: int, *, of: int, seed: int = 0) -> dict[str, Any]:
    """Metrics of one step: every name of METRICS, figures of about the usual size."""
    chance = random.Random(f"{seed} {step}")
    figures: dict[str, Any] = {name: chance.random() for name in METRICS}
    done = step / of
    return figures | {
        "step": step, "epoch": EPOCH, "wall_s": STEP_S * step, "reward_mean": 0.2 + 0.6 * done,
        "tokens": chance.randint(20_000, 30_000), "wait_s": 2.0, "anchor_s": 0.5, "step_s": 5.0,
        "sync_s": 1.0, "skipped": None, "scorer_counts": None, "grad_clipped": False, "kl": None,
        "compared_share": None, "unmet": None, "rejected_share": None, "mismatch_probe": None,
        "mismatch": 0.03 if step % 10 == 1 else None,
        "generated_length_mean": 400 * chance.random(),
        "tickets": [f"train-{8 * step + i:09d}" for i in range(8)],
    }  # fmt: skip


def sample(step: int, at: int, text: Text, *, completions: int = 8) -> dict[str, Any]:
    chance = random.Random(f"{step} {at}")
    return {
        "step": step, "stream": "train", "uid": f"train-{8 * step + at:09d}", "why": ["any"],
        "messages": [{"role": "user", "content": f"Question {at} of step {step}. {text()}"}],
        "completions": [f"Answer {k}: {text()}" for k in range(completions)], "of": completions,
        "rewards": [float(chance.random() < 0.5) for _ in range(completions)], "preferences": None,
        "details": None, "lengths": [chance.randint(10, 400) for _ in range(completions)],
        "finish_reasons": ["stop"] * completions, "versions": [[f"{EPOCH}:{step}"]] * completions,
        "generator": "generator-0",
    }  # fmt: skip


def prose(words: int) -> Iterator[str]:
    """Texts of so many words, which compress about as well as a model's do."""
    chance = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    known = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(3000)]
    pool = chance.choices(known, weights=[1 / (n + 10) for n in range(3000)], k=200_000)
    while True:
        at = chance.randrange(len(pool) - words)
        yield " ".join(pool[at : at + words])


def events(steps: int) -> list[dict[str, Any]]:
    def at(seconds: float, kind: str, **fields: Any) -> dict[str, Any]:
        return {"time": BEGAN + seconds, "kind": kind, **fields}

    found = [
        at(0.0, "versions", packages={"sppo": "0.2", "torch": "2.13.0"}),
        at(0.0, "phase", phase="loading the model"), at(5.0, "phase", phase="evaluating"),
        at(20.0, "phase", phase="training"),
        at(25.0, "warning", topic="truncation", text=f"every completion ended {HOSTILE}"),
        at(26.0, "dead", uid="train-000000003", reason="the scorer refused it"),
        at(27.0, "restart", role="generator-0", text="generator-0 is started again in 1 s"),
    ]  # fmt: skip
    for step in range(1, steps + 1):
        end = 20.0 + STEP_S * step
        found.append(at(end, "sync", step=step, members=["generator-0"], failures=[]))
        if step % 20 == 0 or step == steps:
            low, high = 0.3, 0.5
            found.append(
                at(end, "eval", record={"step": step, "accuracy": 0.4, "win_rate": None,
                                        "interval": [low, high], "n": 200, "dead": 0})
            )  # fmt: skip
    return found


def attended(steps: int) -> list[dict[str, Any]]:
    found = []
    for i in range(int(20 + STEP_S * steps) // 10):
        seconds = 10.0 * i
        common = {"life": "a", "ready_s": seconds, "in_hand": 8 * (i % 5 > 0), "scoring": i % 9}
        generator = {"role": "generator", "busy_s": 0.8 * seconds, "tokens": 900 * i}
        scorer = {"role": "scorer", "busy_s": 0.1 * seconds, "tokens": 0}
        members = {"generator-0": common | generator, "scorer-0": common | scorer}
        found.append({"time": BEGAN + seconds, "members": members})
    return found


def make(
    run_dir: Path, *, steps: int, name: str = "quickstart", overrides: Iterable[str] = (),
    groups: int = 4, text: Text = lambda: HOSTILE, ended: bool = True, seed: int = 0,
) -> Path:  # fmt: skip
    """A run of so many steps that kept so many groups of each."""
    run_dir.mkdir(parents=True)
    settings = config.load(name, list(overrides))
    (run_dir / "config.toml").write_text(config.to_toml(settings), encoding="utf-8")
    lines(run_dir / "metrics.jsonl", (record(n, of=steps, seed=seed) for n in range(1, steps + 1)))
    lines(run_dir / "events.jsonl", events(steps))
    lines(run_dir / "roles.jsonl", attended(steps))
    lines(
        run_dir / "samples.jsonl",
        (sample(n, i, text) for n in range(1, steps + 1) for i in range(groups)),
    )
    if ended:
        summary = {"finished": True, "steps": steps, "busy": {"learner": 0.8}}
        (run_dir / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return run_dir


def broken(run_dir: Path) -> Path:
    """A run that died in its third step, with figures that are none, and a torn last line."""
    make(run_dir, steps=2, groups=0, ended=False)
    (run_dir / "samples.jsonl").unlink()
    (run_dir / "roles.jsonl").unlink()
    third = record(3, of=3) | {"loss": math.nan, "grad_norm": math.inf, "reward_mean": None}
    with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(third) + "\n" + '{"step": 4, "los')
    return run_dir
