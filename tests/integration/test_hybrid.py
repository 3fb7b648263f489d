"""A learner on two machines that each have a copy of the model: four ranks, two by two."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests import checkpoints, makers
from tests.integration import rank

NAMES = ("cut", "adapters")
SIZE, MACHINE = 4, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one rank makes of the script, then four, two to a machine, then one again."""
    folder = tmp_path_factory.mktemp("hybrid")
    makers.tiny_model(folder / "model", vocabulary=rank.VOCABULARY)
    for name in NAMES:
        (folder / f"figures-{name}-1.json").write_text(json.dumps(rank.alone(name, folder)))
    rank.together(
        SIZE, folder, ",".join(NAMES), MASTER_ADDR="127.0.0.1", MASTER_PORT="29518",
        LOCAL_WORLD_SIZE=str(MACHINE),
    )  # fmt: skip
    for name in NAMES:
        rank.alone_again(name, folder)
    return folder


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_metrics_and_checkpoints_are_those_of_one_rank(name: str, folder: Path) -> None:
    # Given a batch, trained by one rank and by two machines of two
    one, four = (load_file(folder / f"gradients-{name}-{n}.safetensors") for n in (1, SIZE))
    # Then the gradients of every step are the same
    assert four.keys() == one.keys()
    for key, value in one.items():
        assert float((four[key] - value).norm()) <= 1e-5 * float(value.norm()) + 1e-9, key
    # and the metrics, the norm of the gradients among them
    expected, found = (
        json.loads((folder / f"figures-{name}-{n}.json").read_text()) for n in (1, SIZE)
    )
    assert "1.grad_norm" in expected
    for key, value in expected.items():
        if not key.endswith(("step_s", "anchor_s", "padding_share")):
            assert math.isclose(found[key], value, rel_tol=1e-4, abs_tol=1e-6), key
    # and checkpoints of one rank and of four are handed on by the other, bit by bit
    saved = {path.name: next(path.iterdir()) for path in (folder / f"saved-{name}").iterdir()}
    assert saved.keys() == {"1", "4", "1-4", "4-1"}
    for handed, there in saved.items():
        for kind in ("model", "optimizer"):
            first, again = checkpoints.load(saved[handed[0]], kind), checkpoints.load(there, kind)
            assert again.keys() == first.keys()
            assert all(torch.equal(again[k], v) for k, v in first.items())


def test_each_row_is_written_once_by_the_ranks_of_the_first_machine(folder: Path) -> None:
    for name in NAMES:
        (saved,) = (folder / f"saved-{name}" / str(SIZE)).iterdir()
        for kind in ("model", "optimizer"):
            files = sorted((saved / kind).iterdir())
            assert len(files) == SIZE
            held = []
            for file in files:
                with safe_open(file, "pt") as tensors:
                    held.append(len(list(tensors.keys())))
            assert held[0]
            assert held[1]
            assert held[2:] == [0, 0]
