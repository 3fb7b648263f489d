"""TensorBoard: event files in RUN/tensorboard."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sppo.config import flatten
from sppo.track.shape import COLUMNS, Row
from sppo.track.tracker import About

FOLDER = "tensorboard"


class Run:
    """See `sppo.track.tracker.Tracker`. Settings are hyperparameters and a text."""

    forgets = True

    def __init__(self, about: About) -> None:
        folder = about.run_dir / FOLDER
        new = not folder.exists()
        self._writer = EventFileWriter(str(folder))
        if new:
            self.forget(0)  # readers heed the second mark and later ones
            flat = {key: _plain(value) for key, value in flatten(dict(about.config)).items()}
            self._write(0, clock.time(), hparams_pb(flat))
            self._write(0, clock.time(), _text("config", ("",), [(f"```toml\n{about.toml}```",)]))

    def forget(self, step: int) -> None:
        """Readers drop this step and later ones at the mark of a restart."""
        mark = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=clock.time(), step=step, session_log=mark))

    def figures(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """As scalars."""
        values = [Summary.Value(tag=name, simple_value=n) for name, n in figures.items()]
        self._write(step, time, Summary(value=values))

    def samples(self, step: int, time: float, stream: str, rows: Sequence[Row]) -> None:
        """As a table of texts."""
        self._write(step, time, _text(f"samples/{stream}", COLUMNS, rows))

    def flush(self) -> None:
        """To the file."""
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()

    def _write(self, step: int, time: float, summary: Summary) -> None:
        self._writer.add_event(Event(wall_time=time, step=step, summary=summary))


def _plain(value: object) -> bool | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _text(tag: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Summary:
    """A table of texts, its head first."""
    cells = [str(cell).encode() for row in (columns, *rows) for cell in row]
    shape = TensorShapeProto(
        dim=[TensorShapeProto.Dim(size=n) for n in (len(rows) + 1, len(columns))]
    )
    tensor = TensorProto(dtype="DT_STRING", string_val=cells, tensor_shape=shape)
    metadata: SummaryMetadata = create_summary_metadata(display_name=None, description="")
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
