"""Checkpoints are whole or absent, and bring training back to the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sppo.errors import SppoError
from sppo.learner import checkpoint
from sppo.learner.adapters import Adapters
from sppo.learner.ledger import Ledger
from sppo.learner.model import Logprobs, Policy
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.types import Version
from tests import makers


def save(root: Path, step: int, keep: int = 2, epoch: str = "abc12345ffff") -> Path:
    tensors = {"w": torch.full((3,), float(step))}
    return checkpoint.save(
        root,
        step=step,
        epoch=epoch,
        model=tensors.items(),
        optimizer=tensors.items(),
        state={"ledger": {}},
        keep=keep,
    )


def test_the_newest_whole_checkpoint_is_found_and_old_ones_go(tmp_path: Path) -> None:
    for step in (20, 40, 60):
        save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-000040-abc12345",
        "step-000060-abc12345",
    ]
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 60
    assert load_file(found.model)["w"].tolist() == [60, 60, 60]


def test_a_checkpoint_cut_off_while_written_is_not_seen(tmp_path: Path) -> None:
    save(tmp_path, 20)
    partial = tmp_path / ".step-000040-abc12345.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 20
    save(tmp_path, 40)  # the same name is written again without complaint
    assert not partial.exists()


def test_a_write_that_fails_leaves_the_previous_one(tmp_path: Path) -> None:
    save(tmp_path, 20)
    tmp_path.joinpath(".step-000040-abc12345.partial").write_text("in the way of the folder")
    with pytest.raises(SppoError, match=r"step 40 was not written.*disk space"):
        save(tmp_path, 40)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 20


@pytest.mark.parametrize("rank", [0, 4])
def test_training_goes_on_with_the_same_bits(tmp_path: Path, rank: int) -> None:
    # Given two steps, a checkpoint, and a third step
    path = makers.tiny_model(tmp_path / "model")
    groups = makers.random_groups(np.random.default_rng(0), 4, vocabulary=61)
    config = makers.run_config(
        adapter={"rank": rank}, **makers.sections(groups_per_step=4, lr=1e-3, offload=rank > 0)
    )

    def fresh() -> tuple[Policy, Optimizer, Trainer]:
        policy = Policy(
            path, device="cpu", logprobs=Logprobs(temperature=1.0), compute=torch.bfloat16,
            adapted=Adapters.of(config),
        )  # fmt: skip
        optimizer = Optimizer(config, policy.master)
        return policy, optimizer, Trainer(config, policy, optimizer)

    policy, optimizer, trainer = fresh()
    for n in range(2):
        list(trainer.train(groups, Version(epoch="e1", n=n)))
    checkpoint.save(
        tmp_path / "c", step=2, epoch="e1aa", model=policy.masters(),
        optimizer=optimizer.state(), state={"ledger": Ledger().state()}, keep=2,
    )  # fmt: skip
    expected = next(iter(trainer.train(groups, Version(epoch="e1", n=2))))
    # When another process loads it and takes the third step
    again, optimizer, trainer = fresh()
    found = checkpoint.newest(tmp_path / "c")
    assert found is not None
    again.load(found.model)
    optimizer.load(found.optimizer)
    got = next(iter(trainer.train(groups, Version(epoch="e1", n=2))))
    # Then loss and weights are the same
    assert got["loss"] == expected["loss"]
    assert all(torch.equal(again.master[k], p) for k, p in policy.master.items())
    assert not rank or all("lora_" in name for name in policy.master)
