"""Checkpoints are whole or absent, and bring training back to the same bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from sppo.errors import ConfigError, FencedError, SppoError
from sppo.learner import checkpoint, stored
from sppo.learner.adapters import Adapters
from sppo.learner.checkpoint import Writing
from sppo.learner.model import Logprobs, Policy
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from sppo.learner.writer import Writer
from sppo.types import Version
from tests import checkpoints, makers
from tests.unit.learner.shards import shard


def save(root: Path, step: int, keep: int = 2, epoch: str = "abc12345ffff") -> Path:
    tensors = {"w": torch.full((3,), float(step))}.items()
    return checkpoints.save(root, step, model=tensors, optimizer=tensors, keep=keep, epoch=epoch)


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
    assert checkpoints.load(found.folder)["w"].tolist() == [60, 60, 60]
    assert (found.has("optimizer"), found.has("anchor")) == (True, False)


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
    checkpoints.save(tmp_path / "c", 2, model=policy.masters(), optimizer=optimizer.state())
    expected = next(iter(trainer.train(groups, Version(epoch="e1", n=2))))
    # When another process loads it and takes the third step
    again, optimizer, trainer = fresh()
    found = checkpoint.newest(tmp_path / "c")
    assert found is not None
    with stored.opened(found.folder, "model") as there:
        again.load(there)
    with stored.opened(found.folder, "optimizer") as there:
        optimizer.load(there)
    got = next(iter(trainer.train(groups, Version(epoch="e1", n=2))))
    # Then loss and weights are the same
    assert got["loss"] == expected["loss"]
    assert all(torch.equal(again.master[k], p) for k, p in policy.master.items())
    assert not rank or all("lora_" in name for name in policy.master)


def test_one_that_was_just_written_stays_and_one_of_a_replaced_life_beyond_it_is_set_aside(
    tmp_path: Path,
) -> None:
    save(tmp_path, 20)
    save(tmp_path, 40, epoch="0ddba11ffff")  # by a life that was replaced, at its last moment
    kept = save(tmp_path, 30, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-000030-abc12345", "step-000040-0ddba11f.replaced",
    ]  # fmt: skip
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.folder == kept


def test_a_learner_that_was_replaced_removes_nothing_of_the_new_one(tmp_path: Path) -> None:
    theirs = tmp_path / ".step-000040-0ddba11f.partial"
    theirs.mkdir()
    with pytest.raises(FencedError):
        begun(tmp_path, confirm=Mock(side_effect=FencedError("another learner has the run")))
    assert list(tmp_path.iterdir()) == [theirs]


def test_an_old_one_that_cannot_be_deleted_is_told_and_the_new_one_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 20)
    remove = Mock(side_effect=OSError("Device or resource busy"))
    monkeypatch.setattr(checkpoint.shutil, "rmtree", remove)
    kept = save(tmp_path, 40, keep=1)
    assert kept.is_dir()
    assert "step-000020-abc12345 could not be deleted: Device or resource busy" in caplog.text


def begun(root: Path, **more: Any) -> Writing:
    return Writing(root, step=4, epoch="abc12345ffff", state={"a": 1}, keep=2, **more)


def test_it_becomes_visible_when_every_rank_has_written_and_it_was_confirmed(
    tmp_path: Path,
) -> None:
    # Given a checkpoint of two ranks, one of which has written
    seen: list[list[str]] = []
    confirm = lambda: seen.append([p.name for p in tmp_path.glob("step-*")])  # noqa: E731
    writing = begun(tmp_path, ranks=2, confirm=confirm)
    ranks = [Writer(), Writer()]
    half = torch.arange(4.0)

    def write(rank: int) -> int:
        kinds = {"model": [("w", shard(half, rank, 2))], "optimizer": []}
        return ranks[rank].begin(writing.scratch, kinds, rank=rank, size=2)

    nbytes = write(0)
    writing.begin(ranks[0], [nbytes, nbytes])
    assert not writing.over(0.02)
    seen.clear()
    # When the other has too
    assert write(1) == nbytes
    assert writing.over(30)
    writing.check()
    # Then it is there, as it was described, and nothing else
    assert seen == [[]]
    assert writing.nbytes == 2 * nbytes
    assert 0 < writing.seconds < 30
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found.folder, found.step, found.state["a"]) == (writing.folder, 4, 1)
    assert torch.equal(checkpoints.load(found.folder)["w"], half)
    names = {p.relative_to(found.folder).as_posix() for p in found.folder.glob("**/*.*")}
    assert names == {"state.json", "manifest.json"} | {
        f"{kind}/0000{i}-of-00002.safetensors" for kind in ("model", "optimizer") for i in (1, 2)
    }


def test_a_rank_that_could_not_write_is_named_and_nothing_is_left_once_no_rank_writes(
    tmp_path: Path,
) -> None:
    # Given a disk that is full for the second of three ranks while the third still writes
    writing = begun(tmp_path, ranks=3)
    own, third = Writer(), Writer()
    kinds: Any = {"model": [("w", torch.ones(2))], "optimizer": []}
    nbytes = own.begin(writing.scratch, kinds, rank=0, size=3)
    (writing.scratch / "part-00002.json").write_text(json.dumps({"error": "No space left"}))
    writing.begin(own, [nbytes] * 3)
    assert not writing.over(0.05)
    assert writing.scratch.is_dir()
    # When that has said how it went
    third.begin(writing.scratch, kinds, rank=2, size=3)
    assert writing.over(30)
    # Then nobody has died of it, and it is said
    with pytest.raises(SppoError, match=r"step 4 was not written to .*rank 1: No space left; free"):
        writing.check()
    assert third.error == ""
    assert list(tmp_path.iterdir()) == []


def test_one_whose_folder_another_life_has_removed_ends(tmp_path: Path) -> None:
    for fenced in (FencedError("another learner has the run"), None):
        confirm = Mock()
        writing = begun(tmp_path, ranks=2, confirm=confirm)
        own = Writer()
        confirm.side_effect = fenced
        nbytes = own.begin(writing.scratch, {"model": []}, rank=0, size=2)
        writing.begin(own, [nbytes] * 2)
        own.rescue()
        shutil.rmtree(writing.scratch)
        assert writing.over(30)
        with pytest.raises(SppoError, match="another learner" if fenced else "was removed while"):
            writing.check()


def test_a_checkpoint_of_another_model_is_named_with_what_differs(tmp_path: Path) -> None:
    save(tmp_path, 20)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    found.check({"w": torch.zeros(3)})
    with pytest.raises(
        ConfigError, match=r"another model than model.name: its 'w' is 3, this .* 4"
    ):
        found.check({"w": torch.zeros(4)})
    with pytest.raises(ConfigError, match=r"its 'b' is absent, this model's 2 × 1; set the model"):
        found.check({"w": torch.zeros(3), "b": torch.zeros(2, 1)})
    with pytest.raises(ConfigError, match=r"its 'w' is 3, this model's absent"):
        found.check({})
