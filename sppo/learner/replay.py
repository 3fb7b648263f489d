"""One optimizer step again, from the groups that a run kept and the newest weights before it.

    weights of a checkpoint, or the base model ── the batches since, one after the other ── the step

What the learner does is done by the learner's own code; nothing is sampled, published or saved, and
nothing in the run directory is changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from sppo import compute, families, models
from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.learner import kept, manifest, objectives, rank, shares
from sppo.learner.checkpoint import Checkpoint
from sppo.learner.groups import InHand
from sppo.learner.kept import Batch
from sppo.learner.lineage import restore
from sppo.learner.objectives import anchors
from sppo.learner.orders import Keep, Rank
from sppo.learner.ranks import Solo
from sppo.learner.samples import scores_K
from sppo.learner.schedule import Schedule
from sppo.learner.trainer import Trainer
from sppo.learner.watched import Watched
from sppo.metrics import METRICS, read_lines

OF_THE_CLOCK = ("anchor_s", "step_s")
NAMES = ("uid", "at")
CLOSE = {"float32": (1e-4, 1e-6), "bfloat16": (0.05, 1e-3)}
"""(relative, absolute) difference up to which a figure counts as the same, by `compute`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to get to a step."""

    checkpoint: Path | None
    """None: from the base model."""
    batches: list[Path]
    """The last one is that of the step."""

    @property
    def start(self) -> int:
        """Steps that the first weights have taken."""
        return manifest.step(self.checkpoint) if self.checkpoint else 0


def find(run_dir: Path, config: RunConfig, step: int) -> Way:
    """Raises ConfigError, with what is missing, for a step that cannot be taken again."""
    there, each = kept.files(run_dir / "groups"), config.learner.steps_per_batch
    first = next((n for n in there if n <= step < n + each), None)
    if first is None:
        steps = f"holds those of steps {min(there)} to {max(there) + each - 1}" if there else (
            "holds none"
        )  # fmt: skip
        raise ConfigError(
            f"--step {step} was not kept: {run_dir / 'groups'} {steps} (learner.keep_groups = "
            f"{config.learner.keep_groups})"
        )
    before = [p for p in manifest.folders(run_dir / "checkpoints") if manifest.step(p) < first]
    way = Way(checkpoint=before[-1] if before else None, batches=[])
    wanted = range(way.start + 1, first + 1, each)
    if missing := [n for n in wanted if n not in there]:
        since = way.checkpoint or "the base model"
        raise ConfigError(
            f"--step {step} cannot be taken again: the newest weights before it are those of "
            f"{since}, and the groups of step {missing[0]} after that were not kept; raise "
            f"learner.keep_groups = {config.learner.keep_groups} to learner.checkpoint_every = "
            f"{config.learner.checkpoint_every} or more"
        )
    if way.checkpoint and (wrong := manifest.damage(way.checkpoint)):
        raise ConfigError(wrong)
    return replace(way, batches=[there[n] for n in wanted])


def replay(
    run_dir: Path, config: RunConfig, step: int, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """The step's metrics beside those that were recorded, and every term of its loss for each
    completion; `say` hears what takes long. Raises ConfigError if it cannot be taken again.
    """
    logging.disable_progress_bar()
    way = find(run_dir, config, step)
    batches = [kept.read(path) for path in way.batches]
    recorded = next((r for r in read_lines(run_dir / "metrics.jsonl") if r["step"] == step), None)
    if recorded is not None and recorded["epoch"] != batches[-1].version.epoch:
        raise ConfigError(
            f"--step {step}: its groups are of a line of training that was given up; the step in "
            "metrics.jsonl was taken by a later life of the learner"
        )
    since = way.checkpoint.name if way.checkpoint else "the base model"
    say(f"from {since}: taking steps {way.start + 1} to {step} ...")
    learner = config.learner.model_copy(update={"ranks": 1})
    config = compute.here(config.model_copy(update={"learner": learner}))
    config = families.settled(config, models.resolve(config.model))
    watched = Watched(objectives.make(config.objective), config.objective)
    own, _ = rank.make(config, Solo(), config.learner.device, InHand(Solo(), ()))
    trainer = Trainer(config, own.policy, own.optimizer, objective=watched)
    _Weights(config, own).begin(way)
    record = _take(config, own, trainer, watched, batches, step)
    found = compare(recorded or {}, record, config.compute)
    return {
        "step": step,
        "from": since,
        "steps_taken": step - way.start,
        "compute": config.compute,
        "recorded": recorded is not None,
        "metrics": found,
        "completions": _completions(config, batches[-1], record["tickets"], watched),
        "others": watched.others(),
    }


class _Weights:
    """The policy and its snapshots, as `sppo.learner.lineage` has them."""

    def __init__(self, config: RunConfig, own: Rank) -> None:
        self._own = own
        self._anchor = anchors.make(config.objective.anchor, config.objective.iteration_steps)
        self._reference = "reference" in objectives.make(config.objective).needs
        self._device = "cpu" if config.learner.snapshot == "host" else own.policy.device

    def publish(self) -> None:
        """Generators have got these."""
        if self._anchor.keeps:
            self._own.do(Keep(snapshot="anchor", device=self._device))

    def renew_reference(self) -> None:
        """The objective compares with these."""
        if self._reference:
            self._own.do(Keep(snapshot="reference", device=self._device))

    def begin(self, way: Way) -> None:
        """Where the way begins."""
        self.publish()
        self.renew_reference()
        if way.checkpoint is not None:
            state = json.loads((way.checkpoint / manifest.STATE).read_text(encoding="utf-8"))
            found = Checkpoint(folder=way.checkpoint, step=way.start, state=state)
            restore(self._own, found, self._anchor, self._device)


def _take(
    config: RunConfig, own: Rank, trainer: Trainer, watched: Watched, batches: Sequence[Batch],
    wanted: int,
) -> dict[str, Any]:  # fmt: skip
    """Every step up to the wanted one; its metrics."""
    weights, schedule = _Weights(config, own), Schedule.of(config)
    for i, batch in enumerate(batches):
        if i and batch.published.n == batch.version.n:
            weights.publish()
        steps = trainer.train(batch.groups, batch.version, batch.published)
        for n in range(batch.version.n + 1, batch.version.n + schedule.steps_per_batch + 1):
            watched.open = n == wanted
            record = next(steps)
            if watched.open:
                return record
        if schedule.renews_reference(batch.version.n, n):
            weights.renew_reference()
    raise AssertionError(f"step {wanted} is in none of these batches")


def compare(
    recorded: Mapping[str, Any], again: Mapping[str, Any], compute: str
) -> list[dict[str, Any]]:
    """Each figure of a step as it was recorded (None if it was not) and again, and whether they are
    the same but for rounding; the difference is None where one of them is no number.
    """
    relative, absolute = CLOSE[compute]
    found = []
    for name in METRICS:
        was, now = recorded.get(name), again.get(name)
        if name not in again or name in OF_THE_CLOCK or isinstance(now, list):
            continue
        numbers = isinstance(was, int | float) and isinstance(now, int | float)
        difference = now - was if numbers else None  # type: ignore[operator]
        same = was == now or (
            numbers and math.isclose(was, now, rel_tol=relative, abs_tol=absolute)  # type: ignore[arg-type]
        )
        found.append(
            {"name": name, "recorded": was, "again": now, "difference": difference, "same": same}
        )
    return found


def _completions(
    config: RunConfig, batch: Batch, tickets: Sequence[str], watched: Watched
) -> list[dict[str, Any]]:
    """Every completion of the step's groups: its score, and the terms of those that went through
    the model (`fed`).
    """
    items = {item.group.uid: item for item in shares.select(watched, batch.groups)}
    seen = {(row["uid"], row["at"]): row for row in watched.completions()}
    found = []
    for uid in tickets:
        item = items[uid]
        fed = iter(range(len(item.keep_K)))
        scores = scores_K(item.group)
        for k, completion in enumerate(item.group.completions):
            row = seen.get((uid, next(fed))) if item.fed_K[k] else None
            found.append(
                {
                    "uid": uid,
                    "completion": k,
                    "fed": row is not None,
                    "score": None if np.isnan(scores[k]) else float(scores[k]),
                    "length": len(completion.token_ids),
                    "finish_reason": completion.finish_reason,
                    "versions": [str(span.version) for span in completion.spans],
                    **{key: value for key, value in (row or {}).items() if key not in NAMES},
                }
            )
    return found
