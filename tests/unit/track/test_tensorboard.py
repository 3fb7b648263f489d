from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from sppo.track import tensorboard
from tests.unit.track.conftest import Written, about

SESSION = "_hparams_/session_start_info"


def read(run_dir: Path, name: str) -> Any:
    """By one of TensorBoard's readers: `event_accumulator`, or that of its pages, which has texts
    and scalars alike as tensors.
    """
    module = importlib.import_module(f"tensorboard.backend.event_processing.{name}")
    return module.EventAccumulator(str(run_dir / tensorboard.FOLDER)).Reload()


def test_its_own_reader_finds_each_step_once_also_after_a_restart(written: Written) -> None:
    # Given a process that wrote four steps, and another that writes two of them again
    run = tensorboard.Run(about(written.run_dir))
    for step in (1, 2, 3, 4):
        run.figures(step, 100.0 + step, {"loss": 0.5})
    run.samples(4, 104.0, "train", [(4, *["x"] * 10)])
    run.close()
    again = tensorboard.Run(about(written.run_dir))
    again.forget(3)
    for step in (3, 4):
        again.figures(step, 200.0 + step, {"loss": 0.25, "eval/accuracy": 0.5})
    again.samples(4, 204.0, "train", [(4, "best", *["y"] * 9)])
    again.flush()
    # Then
    found = read(written.run_dir, "event_accumulator")
    assert [(e.step, e.wall_time, e.value) for e in found.Scalars("loss")] == [
        (1, 101.0, 0.5), (2, 102.0, 0.5), (3, 203.0, 0.25), (4, 204.0, 0.25),
    ]  # fmt: skip
    page = read(written.run_dir, "plugin_event_accumulator")
    assert [e.step for e in page.Tensors("loss")] == [1, 2, 3, 4]
    (table,) = page.Tensors("samples/train")
    assert [d.size for d in table.tensor_proto.tensor_shape.dim] == [2, 11]
    assert table.tensor_proto.string_val[11:14] == [b"4", b"best", b"y"]
    assert b"steps = 3" in page.Tensors("config")[0].tensor_proto.string_val[1]
    assert b"learner.steps" in page.SummaryMetadata(SESSION).plugin_data.content
    again.close()
