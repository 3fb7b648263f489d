"""What a run writes down that training can do without: where a file cannot be written, that is a
warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sppo.learner.kept import Kept
from sppo.learner.records import Records
from sppo.learner.samples import Samples
from sppo.learner.spans import Spans
from sppo.types import Group, Version
from sppo.watch.said import Finding
from sppo.watch.topics import TOPICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """Those of one run."""

    records: Records
    kept: Kept
    samples: Samples
    spans: Spans

    def batch(self, groups: Sequence[Group], version: Version, published: Version) -> None:
        """What is about to be trained at these versions."""
        with self._spare("groups", "learner.keep_groups = 0"):
            self.kept.keep(groups, version, published)

    def steps(self, steps: Sequence[Mapping[str, Any]], groups: Sequence[Group]) -> None:
        """These steps were taken with these groups."""
        with self._spare("samples.jsonl", "learner.keep_samples = 0"):
            self.samples.of_steps(steps, groups)
        with self._spare("spans.jsonl"):
            self.spans.of_steps(steps, groups)

    def evaluation(self, step: int, groups: Sequence[Group]) -> None:
        """These were the answers at this step."""
        with self._spare("samples.jsonl", "learner.keep_samples = 0"):
            self.samples.of_evaluation(step, groups)

    @contextmanager
    def _spare(self, name: str, setting: str = "") -> Iterator[None]:
        """Around what writes the file or folder of this name; `setting` is how to do without."""
        topic = f"disk: {name}"
        try:
            yield
        except OSError as error:
            why = f"RUN/{name} was not written: {error.strerror or error}: {TOPICS['disk'].cause}"
            mend = f"free some disk space{setting and f', or set {setting}'}"
            self.records.judged(topic, Finding(topic, f"{why}; {mend}"))
        else:
            self.records.judged(topic, None)
