"""A learner of several ranks, as processes over gloo: the same mathematics as one, and checkpoints
for any number.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import checkpoints, makers
from tests.integration import rank

SIZES = (2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two and three ranks make of the script, after one has."""
    folder = tmp_path_factory.mktemp("ranks")
    makers.tiny_model(folder / "model", vocabulary=rank.VOCABULARY)
    for name in rank.CONFIGS:
        (folder / f"figures-{name}-1.json").write_text(json.dumps(rank.alone(name, folder)))
    for size in SIZES:
        rank.together(size, folder)
        if size == 2:
            for name in rank.CONFIGS:
                rank.alone_again(name, folder)
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", rank.CONFIGS)
def test_gradients_metrics_and_checkpoints_are_those_of_one_rank(name: str, folder: Path) -> None:
    # Given a batch with groups of every kind, trained by one rank and by several
    expected = json.loads((folder / f"figures-{name}-1.json").read_text())
    one = load_file(folder / f"gradients-{name}-1.safetensors")
    for size in SIZES:
        # Then the gradients of every optimizer step are the same
        several = load_file(folder / f"gradients-{name}-{size}.safetensors")
        assert several.keys() == one.keys()
        for key, value in one.items():
            assert float((several[key] - value).norm()) <= 1e-5 * float(value.norm()) + 1e-9, (
                size,
                key,
            )
        # and the metrics
        figures = json.loads((folder / f"figures-{name}-{size}.json").read_text())
        timed = ("step_s", "anchor_s", "padding_share")  # other micro-batches, other padding
        for key, value in expected.items():
            if not key.endswith(timed):
                assert math.isclose(figures[key], value, rel_tol=1e-4, abs_tol=1e-6), (size, key)
    # and a checkpoint of one number of ranks is handed on by others, bit by bit
    saved = {path.name: next(path.iterdir()) for path in (folder / f"saved-{name}").iterdir()}
    assert {"1", "2", "3", "1-2", "2-1", "1-3", "2-3", "2-1-3"} <= saved.keys()
    for handed, found in saved.items():
        kinds = sorted(path.name for path in found.iterdir() if path.is_dir())
        assert kinds == ["model", "optimizer", *(["reference"] if name == "softmean" else [])]
        for kind in kinds:
            assert len(list((found / kind).iterdir())) == int(handed[-1])
            first = checkpoints.load(saved[handed[0]], kind)
            again = checkpoints.load(found, kind)
            assert again.keys() == first.keys()
            assert all(torch.equal(again[k], v) for k, v in first.items())
    # and what they export is a model that others can read
    from transformers import AutoModelForCausalLM

    export = AutoModelForCausalLM.from_pretrained(folder / f"export-{name}-3", dtype=torch.float32)
    written, there = checkpoints.load(saved["3"]), dict(export.named_parameters())
    if name == "adapters":
        there = load_file(folder / f"export-{name}-3" / "adapter" / "adapter_model.safetensors")
        assert len(there) == len(written)
        written = {f"base_model.model.{n.replace('.default', '')}": w for n, w in written.items()}
    assert all(torch.equal(p, written[n]) for n, p in there.items())
