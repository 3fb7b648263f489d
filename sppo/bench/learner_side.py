"""One side of `sppo-cli bench learner`, in a process of its own: optimizer steps on given groups.

    python -m sppo.bench.learner_side SIDE FOLDER        # FOLDER/job.json says what to do

FOLDER gets SIDE.json: seconds of each step, and the bytes by which the process grew at most, from
before the model was loaded.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sppo import config as settings
from sppo.config import RunConfig, cpu_threads
from sppo.types import Completion, Group, Version, VersionSpan

Side = Literal["sppo", "padded", "trl", "matmul"]
SIDES: tuple[Side, ...] = ("sppo", "padded", "trl", "matmul")
_VERSION = Version(epoch="bench", n=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a side is to do."""

    config: str
    """A RunConfig as JSON, its `compute` decided."""
    prompt: int
    """Tokens of each prompt."""
    shortest: int
    longest: int
    """Tokens of a completion, drawn evenly from here to there."""
    vocabulary: int
    """Tokens are drawn below it."""
    steps: int
    """Counted ones; one before them is not."""

    def groups(self) -> list[Group]:
        """Of one optimizer step: the same for each side."""
        config, rng = settings.from_json(self.config), np.random.default_rng(0)
        return [
            Group(
                gid=f"train-{n:09d}.g.1", uid=f"train-{n:09d}", stream="train", generator="bench",
                prompt_ids=rng.integers(0, self.vocabulary, self.prompt).astype(np.int32),
                completions=tuple(
                    self._completion(rng) for _ in range(config.sampling.completions)
                ),
                rewards=rng.random(config.sampling.completions).astype(np.float32),
            )
            for n in range(config.learner.groups_per_step)
        ]  # fmt: skip

    def _completion(self, rng: np.random.Generator) -> Completion:
        length = int(rng.integers(self.shortest, self.longest + 1))
        return Completion(
            token_ids=rng.integers(0, self.vocabulary, length).astype(np.int32),
            behavior_logprobs=np.full(length, -8, np.float32),
            spans=(VersionSpan(version=_VERSION, start=0, end=length),), finish_reason="stop",
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a side took."""

    step_s: list[float]
    peak_bytes: float


def write(job: Job, folder: Path) -> None:
    """For the process that reads it."""
    (folder / "job.json").write_text(json.dumps(asdict(job)), encoding="utf-8")


def main(side: Side, folder: Path) -> None:
    """Do one side's part of the folder's job."""
    job = Job(**json.loads((folder / "job.json").read_text(encoding="utf-8")))
    threads = cpu_threads(settings.from_json(job.config).learner.threads)
    # Before torch is imported.
    os.environ |= {
        "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": "",
        "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0",
    }  # fmt: skip
    import torch

    torch.set_num_threads(threads)
    (folder / f"{side}.json").write_text(
        json.dumps(asdict(measure(side, job, folder))), encoding="utf-8"
    )


def measure(side: Side, job: Job, folder: Path) -> Found:
    """The side's steps, in this process."""
    from sppo.bench import learner_limit, learner_trl
    from sppo.bench.gauges import Memory

    config, groups = settings.from_json(job.config), job.groups()
    count = 1 + job.steps  # the first loads, compiles and makes the moments
    ways: dict[Side, Callable[[], list[float]]] = {
        "sppo": lambda: ours(config, groups, count),
        "padded": lambda: ours(unshared(config), groups, count),
        "trl": lambda: learner_trl.take(config, groups, count, folder),
        "matmul": lambda: [learner_limit.seconds(config, groups) for _ in range(count)],
    }
    gc.collect()
    memory = Memory(gpu=False)
    memory.reset()
    seconds = ways[side]()
    return Found(step_s=seconds[1:], peak_bytes=(memory.extra_mib() or 0.0) * 2**20)


def unshared(config: RunConfig) -> RunConfig:
    """With one row a completion."""
    changed = config.learner.model_copy(update={"share_prompt": False})
    return config.model_copy(update={"learner": changed})


def ours(config: RunConfig, groups: list[Group], count: int) -> list[float]:
    """Seconds of each optimizer step of this project's learner."""
    from sppo.learner import rank
    from sppo.learner.groups import InHand
    from sppo.learner.ranks import Solo

    _, trainer = rank.make(config, Solo(), "cpu", InHand(Solo(), ()))
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        for record in trainer.train(groups, _VERSION):
            assert not record["skipped"], record["skipped"]
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    arguments: Any = sys.argv[1:]
    main(arguments[0], Path(arguments[1]))
