"""A learner's step against that of another checkout, on the same batch: alternating, median ratio.

    python -m tests.bench.paired_step OTHER_CHECKOUT --rounds 10

Both are processes of this Python, each with its own checkout first on the path, and each holds the
quickstart's model; only one works at a time. The machine is to be quiet meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

COMPLETIONS, PROMPT = 8, 60
QUIET = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""As in a role: threads that wait do not spin."""
HERE = Path(__file__).parents[2]


def batch(vocabulary: int, count: int) -> list[Any]:
    """Groups of the quickstart's shape, all with a signal, the same in every process."""
    from sppo.types import Completion, Group, Version, VersionSpan

    rng = np.random.default_rng(0)
    groups = []
    for g in range(count):
        completions = []
        for length in rng.integers(4, 17, COMPLETIONS).tolist():
            completions.append(
                Completion(
                    token_ids=rng.integers(0, vocabulary, length).astype(np.int32),
                    behavior_logprobs=np.full(length, -8.0, np.float32),
                    spans=(VersionSpan(version=Version(epoch="e", n=0), start=0, end=length),),
                    finish_reason="stop",
                )
            )
        groups.append(
            Group(
                gid=f"train-{g:09d}.g.1",
                uid=f"train-{g:09d}",
                stream="train",
                generator="g",
                prompt_ids=rng.integers(0, vocabulary, PROMPT).astype(np.int32),
                completions=tuple(completions),
                rewards=rng.random(COMPLETIONS).astype(np.float32),
            )
        )
    return groups


def work(count: int) -> None:
    """One side: a step for every line that comes in, its seconds on a line of their own."""
    from sppo import compute, models
    from sppo.config import load
    from sppo.learner.model import Logprobs, Policy
    from sppo.learner.optim import Optimizer
    from sppo.types import Version

    run: Any = load("quickstart", environment=False)
    if run.compute == "auto":
        run = run.model_copy(update={"compute": "float32"})
    settings: Any = run
    try:
        from sppo.learner.trainer import Trainer
    except ImportError:  # a checkout from before steps and trainers parted
        from sppo.learner.step import Trainer  # type: ignore[attr-defined,no-redef]

        settings = run.learner
    policy = Policy(
        models.resolve(run.model), device="cpu", logprobs=Logprobs.of(run, "cpu"),
        compute=compute.dtype(run),
    )  # fmt: skip
    trainer = Trainer(settings, policy, Optimizer(settings, policy.master))
    groups = batch(policy.vocabulary, count)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        list(trainer.train(groups, Version(epoch="e", n=0)))
        print(time.perf_counter() - started, flush=True)


class Side:
    """A process of one checkout."""

    def __init__(self, checkout: Path, groups: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, "--work", f"--groups={groups}"],
            env=os.environ | QUIET | {"PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=checkout,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._given, self._said = self._process.stdin, self._process.stdout
        while (line := self._said.readline()).strip() != "ready":
            if not line:
                raise SystemExit(f"{checkout}: the learner did not start")

    def step(self) -> float:
        """Seconds of one more step."""
        self._given.write("go\n")
        self._given.flush()
        return float(self._said.readline())

    def close(self) -> None:
        """End it."""
        self._given.close()
        self._process.wait()


def main() -> None:
    """Compare, and print the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--work", action="store_true")
    asked = parser.parse_args()
    if asked.work:
        work(asked.groups)
        return
    sides = Side(HERE, asked.groups), Side(asked.other.resolve(), asked.groups)
    try:
        for side in sides:
            side.step()  # warm
        rounds = []
        for i in range(asked.rounds):
            order = (0, 1) if i % 2 else (1, 0)
            seconds = {which: sides[which].step() for which in order}
            rounds.append((seconds[0], seconds[1]))
            print(f"{seconds[0]:.3f} s against {seconds[1]:.3f} s", flush=True)
    finally:
        for side in sides:
            side.close()
    ratio = median(own / other for own, other in rounds)
    print(f"median ratio {ratio:.3f} over {len(rounds)} rounds")


if __name__ == "__main__":
    main()
