"""Whole runs of the quickstart preset under other schedules: the tables of docs/objective.md.

    python -m tests.bench.laptop staleness     --out runs/laptop      twelve runs
    python -m tests.bench.laptop mini-batches  --out runs/laptop      four runs

A run takes eight to twelve minutes on two cores and wants the machine for itself. A run whose
folder holds a finished summary is not repeated, so the command may be stopped and called again; the
table is printed from what there is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from sppo.metrics import JsonLines
from sppo.scorer.rules import last_number

SEEDS = (0, 1)
DELAY_S = 1.0
STEPS = 60

# Every ticket is sampled as soon as it is issued (80 groups at a time), then held back: staleness
# is the lookahead.
STALENESS = {
    f"lookahead-{lookahead}-{weight}": {
        "learner.lookahead_steps": lookahead,
        "objective.weight": weight,
        "generator.max_groups": 80,
        "scorer.name": "tests.bench.laptop:delayed",
    }
    for lookahead in (0, 2, 8)
    for weight in ("geometric", "none")
}

# The same 480 groups in the same 60 optimizer steps of eight; with four, a batch is anchored once
# for four steps, and one batch of lookahead is four times as many steps of staleness.
MINI_BATCHES = {
    "mini-batches-1": {"learner.mini_batches": 1, "learner.groups_per_step": 8},
    "mini-batches-4": {"learner.mini_batches": 4, "learner.groups_per_step": 32},
}

TABLES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "staleness": STALENESS,
    "mini-batches": MINI_BATCHES,
}


def delayed(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """The quickstart's scorer, late on purpose; evaluations (one completion) are not held back."""
    if len(completions) > 1:
        time.sleep(DELAY_S)
    return last_number(question, completions, data)


def run(name: str, settings: Mapping[str, Any], seed: int, out: Path) -> Path:
    """One run of the preset, unless it is there already; returns its folder."""
    folder = out / f"{name}-seed{seed}"
    if not finished(folder):
        values = {"seed": seed, "learner.steps": STEPS, "eval.every_steps": STEPS, **settings}
        command = [
            str(Path(sys.executable).with_name("sppo-cli")),
            "up",
            "quickstart",
            "--run-dir",
            str(folder),
        ]
        command += [f"--set={key}={value}" for key, value in values.items()]
        print(" ".join(command), file=sys.stderr, flush=True)
        out.mkdir(parents=True, exist_ok=True)
        with (out / f"{folder.name}.log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    return folder


def finished(folder: Path) -> bool:
    """Whether the run in this folder came to its end."""
    path = folder / "summary.json"
    return path.exists() and bool(json.loads(path.read_text())["finished"])


def row(name: str, folders: Sequence[Path]) -> str:
    """One line of the table: each seed's accuracy, then means over the optimizer steps of all
    seeds.
    """
    summaries = [json.loads((f / "summary.json").read_text()) for f in folders]
    records = [record for f in folders for record in JsonLines(f / "metrics.jsonl").read()]
    late = [
        r for f in folders for r in JsonLines(f / "metrics.jsonl").read() if r["step"] > STEPS // 2
    ]

    def average(key: str) -> float:
        values = [r[key] for r in records if r[key] is not None]
        return mean(values) if values else float("nan")

    cells = [
        name,
        " / ".join(f"{s['held_out_accuracy']['after']:.3f}" for s in summaries),
        f"{mean(r['reward_mean'] for r in late):.3f}",
        f"{average('staleness_mean'):.2f} ({max(r['staleness_max'] or 0 for r in records)})",
        f"{average('effective_sample_size'):.4f} "
        f"({min(r['effective_sample_size'] for r in records):.4f})",
        f"{average('log_rho_token_std'):.3f} / {average('log_rho_std'):.2f}",
        f"{average('weight_clipped_share'):.4f}",
    ]
    return "| " + " | ".join(cells) + " |"


COLUMNS = (
    "run",
    "held-out accuracy, per seed",
    "train reward, second half",
    "staleness mean (max)",
    "effective sample size mean (min)",
    "std of log ρ, token / sequence",
    "weights clipped",
)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--only", action="append", help="run this row alone; may be given more than once"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    rows = {
        k: v
        for k, v in TABLES[arguments.table].items()
        if not arguments.only or k in arguments.only
    }
    found: dict[str, list[Path]] = {name: [] for name in rows}
    for seed in arguments.seeds:
        for name, settings in rows.items():
            found[name].append(run(name, settings, seed, arguments.out))
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    for name, folders in found.items():
        print(row(name, folders))


if __name__ == "__main__":
    main()
