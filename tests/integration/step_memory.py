"""One learner in this process: takes steps of the longest groups that its settings allow, and says
what its memory grew by. `python -m tests.integration.step_memory`
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import nn

from sppo import compute, config
from sppo.bench.gauges import Memory
from sppo.learner import rank
from sppo.learner.groups import InHand
from sppo.learner.ranks import Solo
from sppo.plan import learner
from tests import makers

SMALL = [
    "learner.device=cpu", "learner.threads=2", "task.max_prompt_tokens=64",
    "learner.groups_per_step=2",
]  # fmt: skip


def main() -> None:
    run = compute.decided(config.load("quickstart", SMALL, environment=False), cuda=False)
    planned = learner.rank(run, gpu=False)
    layout = planned.layout
    rng = np.random.default_rng(0)
    groups = [makers.group(f"train-{n:09d}", size=layout.completions) for n in range(layout.groups)]
    for n, group in enumerate(groups):
        tokens = rng.integers(0, 40_000, (layout.completions, layout.longest)).tolist()
        object.__setattr__(group, "prompt_ids", np.arange(layout.prompt, dtype=np.int32) + n)
        object.__setattr__(group, "completions", tuple(map(makers.completion, tokens)))
    nn.Linear(8, 8)(torch.ones(1, 8)).sum().backward()  # what torch takes at its first steps
    memory = Memory(gpu=False)
    memory.reset()
    _, trainer = rank.make(run, Solo(), "cpu", InHand(Solo(), ()))
    for _ in range(2):  # the second has moments
        list(trainer.train(groups, makers.V0))
    expected = planned.peak - planned.stands["staged weights"]
    print(json.dumps({"measured": (memory.extra_mib() or 0) * 2**20, "planned": expected}))


if __name__ == "__main__":
    main()
