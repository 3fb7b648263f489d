"""One rank of a learner, for tests: `python -m tests.integration.rank RANK SIZE FOLDER [NAMES]`.
Rank 0 follows the script. With MASTER_ADDR it is one that was started by hand.

FOLDER holds `model/`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sppo.config import RunConfig
from sppo.learner import by_hand, place
from sppo.learner.adapters import Adapters
from sppo.learner.checkpoint import Writing
from sppo.learner.groups import Fetched, InHand
from sppo.learner.model import Logprobs, Policy
from sppo.learner.optim import Optimizer
from sppo.learner.orders import Drop, Export, Keep, Load, Rank, Save, Weights
from sppo.learner.ranks import PATIENCE, Ranks, Solo, Team
from sppo.learner.rows import whole
from sppo.learner.sharded import ShardedPolicy
from sppo.learner.spool import Spool
from sppo.learner.trainer import Trainer
from sppo.transport.memory import MemoryBroker
from sppo.types import Version, VersionSpan
from tests import checkpoints, makers

VOCABULARY = 61
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.preload", __name__])
DEVICE = os.environ.get("RANK_DEVICE", "cpu")
"""`cuda`: of tests/gpu."""
TRUSTED = {"trusted_network": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "centered": {"mini_batches": 2, "entropy_coef": 0.01},
    "softmean": {
        "target": "softmean",
        "weight": "sequence",
        "kl_coef": 0.1,
        "select": "best_worst",
    },
    "batch_softmean": {"target": "batch_softmean", "weight": "none", "mini_batches": 2},
    "cut": {"target": "softmean", "micro_batch_tokens": 14, "entropy_coef": 0.01},
    "epochs": {"name": "grpo", "mini_batches": 2, "epochs": 2, "weight": "none"},
    "adapters": {"mini_batches": 2, "kl_coef": 0.1, "offload": True},
}


class Keeping(Optimizer):
    """Keeps the whole gradients of every step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kept: dict[str, Tensor] = {}
        self.count = 0

    def _clip(self) -> float:
        self.count += 1
        self.kept |= {f"{self.count}.{n}": whole(p.grad).clone() for n, p in self._master.items()}
        return super()._clip()


def groups(name: str = "") -> list[Any]:
    """Eight groups of unequal sizes, two without a signal, some sampled by another version; for
    `epochs` one has a completion that is longer than all the others together.
    """
    rng = np.random.default_rng(3)
    made = makers.random_groups(rng, 8, vocabulary=VOCABULARY)
    if name == "epochs":
        long = makers.completion(rng.integers(0, VOCABULARY, 100).tolist(), logprob=-4.0)
        made[1] = replace(made[1], completions=(long, *made[1].completions[1:]))
    for i in (3, 5):
        made[i] = replace(made[i], rewards=np.full(len(made[i].completions), 0.5, np.float32))
    late = Version(epoch="e1", n=1)
    for i in (0, 6):
        spans = [
            (VersionSpan(version=late, start=0, end=len(c.token_ids)),) for c in made[i].completions
        ]
        late_ones = [replace(c, spans=s) for c, s in zip(made[i].completions, spans, strict=True)]
        made[i] = replace(made[i], completions=tuple(late_ones))
    return made


def settings(name: str) -> RunConfig:
    common = {"groups_per_step": 8, "steps": 60, "lr": 1e-3, "micro_batch_tokens": 40}
    return makers.run_config(
        adapter={"rank": 5 if name == "adapters" else 0},
        **makers.sections(**common | CONFIGS[name]),
    )


def how(name: str) -> dict[str, Any]:
    """How a policy of these settings computes."""
    return {
        "device": DEVICE,
        "logprobs": Logprobs(temperature=0.7),
        "compute": torch.float32,
        "adapted": Adapters.of(settings(name)),
    }


def make(name: str, policy: Any, team: Ranks, groups: Any) -> tuple[Rank, Keeping, Trainer]:
    """A rank of these settings."""
    optimizer = Keeping(settings(name), policy.master, team)
    trainer = Trainer(settings(name), policy, optimizer, team)
    rank = Rank(team=team, policy=policy, optimizer=optimizer, trainer=trainer, groups=groups)
    return rank, optimizer, trainer


def save(rank: Rank, root: Path) -> Path:
    """A checkpoint, the reference in it where there is one."""
    kept = ["reference"] if root.parent.name == "saved-softmean" else []
    writing = Writing(root, step=1, epoch="abc12345", state={}, keep=9, ranks=rank.team.size)
    order = Save(folder=str(writing.scratch), snapshots=kept)
    writing.begin(rank.writer, list(rank.stream(order)))
    while not writing.over(1.0):
        pass
    writing.check()
    return writing.folder


def hand_on(rank: Rank, name: str, folder: Path) -> None:
    """Load each checkpoint that is there, and save what was loaded: 2, then 2-1, then 2-1-3."""
    for there in sorted((folder / f"saved-{name}").iterdir()):
        if str(rank.team.size) not in there.name:
            (found,) = there.iterdir()
            rank.do(Load(folder=str(found)))
            if (found / "reference").exists():
                rank.do(Keep(snapshot="reference", device="cpu", folder=str(found)))
            save(rank, there.parent / f"{there.name}-{rank.team.size}")


def script(name: str, folder: Path, policy: Any, team: Ranks) -> dict[str, Any]:
    """What rank 0 does; writes gradients and checkpoints, and returns figures."""
    rank, optimizer, trainer = make(name, policy, team, InHand(team, ()))
    if settings(name).objective.kl_coef:
        rank.do(Keep(snapshot="reference", device="cpu"))
    rank.do(Keep(snapshot="probe", device="cpu"))
    figures: dict[str, Any] = {}
    records = list(trainer.train(groups(name), makers.V0))
    for record in records:
        figures |= {
            f"{record['step']}.{k}": v for k, v in record.items() if isinstance(v, int | float)
        }
    figures["mismatch"] = trainer.mismatch(groups(name), makers.V0).mean
    figures["mismatch.probe"] = trainer.mismatch(groups(name), makers.V0, "probe").mean
    rank.do(Drop(snapshot="probe"))
    size = team.size
    save_file(
        {k: v.cpu() for k, v in optimizer.kept.items()},
        folder / f"gradients-{name}-{size}.safetensors",
    )
    written = save(rank, folder / f"saved-{name}" / str(size))
    weights = {k: v.clone() for k, v in rank.stream(Weights())}
    if name != "adapters":
        assert all(torch.equal(weights[k], v) for k, v in checkpoints.load(written).items())
    if size > 1:
        rank.do(Export(folder=str(folder / f"export-{name}-{size}"), dtype="float32"))
    hand_on(rank, name, folder)
    return figures


def assert_patient(team: Ranks) -> None:
    """Whoever waits in a collective of the mesh waits as long as in any other."""
    for group in team.mesh.get_all_groups():
        assert group._get_backend(torch.device(DEVICE)).options._timeout == PATIENCE


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    names = sys.argv[4].split(",") if len(sys.argv) > 4 else list(CONFIGS)
    by = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0"}
    shard = "machine" if "LOCAL_WORLD_SIZE" in by else "all"
    team: Ranks
    if "MASTER_ADDR" in by:
        given = {"ranks": size, "shard": shard}
        found = place.find(makers.run_config(learner=given, weights=TRUSTED), by)
        assert found is not None
        team = by_hand.meet(found, DEVICE, 60.0)
    else:
        team = Team(rank, size, folder / f"store-{size}", DEVICE)
    assert_patient(team)
    for name in names:
        policy = ShardedPolicy(str(folder / "model"), team, **how(name))
        if rank:
            groups = Fetched(team, MemoryBroker().tickets, Spool(folder))
            make(name, policy, team, groups)[0].follow()
            continue
        figures = script(name, folder, policy, team)
        (folder / f"figures-{name}-{size}.json").write_text(json.dumps(figures))
        team.tell({})
    os._exit(0)


def together(size: int, folder: Path, names: str = "", **environment: str) -> None:
    """Several ranks, each a process that has torch from the start."""
    words = [str(size), str(folder), *([names] if names else [])]
    ranks = [
        CONTEXT.Process(target=_begin, args=([str(r), *words], environment)) for r in range(size)
    ]
    for each in ranks:
        each.start()
    try:
        for each in ranks:
            each.join(240)
        assert [each.exitcode for each in ranks] == [0] * size
    finally:
        for each in ranks:
            each.kill()


def _begin(words: list[str], environment: dict[str, str]) -> None:
    os.environ |= environment
    sys.argv[1:] = words
    main()


def alone(name: str, folder: Path) -> dict[str, Any]:
    """The same by one rank, in this process."""
    policy = Policy(str(folder / "model"), **how(name))
    return script(name, folder, policy, Solo())


def alone_again(name: str, folder: Path) -> None:
    """One rank hands on what several wrote."""
    policy = Policy(str(folder / "model"), **how(name))
    hand_on(make(name, policy, Solo(), InHand(Solo(), ()))[0], name, folder)


if __name__ == "__main__":
    main()
