"""Checkpoints: model, optimizer, random state, version, and the ledger of tickets, as one unit.

    RUN/checkpoints/step-000020-<epoch>/
        model/00001-of-00002.safetensors    float32 master weights: the rows of rank 0 of two
        optimizer/…                         moments and counts
        anchor/…                            the snapshot that generators run, where it is not the
                                            model itself
        reference/…                         the reference of the objective, where it is not the base
                                            model
        state.json      versions (n, published), parent, ledger, random state, evaluations
        manifest.json   size and checksum of each of these (`sppo.learner.manifest`)

Each rank writes its own rows (`sppo.learner.writer`) in a temporary folder, while training goes on.
When all have, rank 0 adds what it knew when they were copied, flushes, renames the folder and
flushes the parent: a checkpoint is there whole or not at all. What was damaged since is refused
before it is loaded, and any number of ranks loads it. Nothing is pickled.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppo.errors import ConfigError, SppoError
from sppo.faults import point
from sppo.learner import manifest, stored
from sppo.learner.writer import Writer, part_name, reserve

log = logging.getLogger(__name__)

LOOK_S = (0.01, 0.5)
"""Between two looks for the ranks' parts: at first, and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    folder: Path
    step: int
    state: dict[str, Any]

    def has(self, kind: str) -> bool:
        """Whether tensors of this kind were saved."""
        return bool(stored.paths(self.folder, kind))

    def check(self, master: Mapping[str, Tensor]) -> None:
        """Raises ConfigError if it is of another model than these are the weights of."""
        with stored.opened(self.folder, "model") as there:
            ours = {name: tuple(weight.shape) for name, weight in master.items()}
            theirs = {name: there[name].shape for name in there.names()}
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise ConfigError(
                    f"{self.folder} is of another model than model.name: its {name!r} is "
                    f"{_shape(theirs.get(name))}, this model's {_shape(ours.get(name))}; set the "
                    "model that the run began with, or choose another run"
                )


def newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint, or None. Raises ConfigError if it is damaged."""
    found = manifest.newest(root)
    if found is None:
        return None
    folder, state = found
    return Checkpoint(folder=folder, step=int(state["step"]), state=state)


class Writing:
    """One checkpoint while it is written; rank 0's."""

    def __init__(
        self, root: Path, *, step: int, epoch: str, state: Mapping[str, Any], keep: int,
        ranks: int = 1, confirm: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Take down the state as it is now, and make `scratch`, where so many ranks write.

        `confirm` is called now and before the checkpoint becomes visible, and may raise: a learner
        that was replaced writes none, and removes nothing. All but the newest `keep` are deleted
        afterwards.

        Raises SppoError if the disk is full; what was there before is then untouched.
        """
        confirm()
        self._root, self.step, self._keep, self._confirm = root, step, keep, confirm
        self._ranks = ranks
        header = {
            "format": manifest.FORMAT,
            "step": step,
            "epoch": epoch,
            "torch_rng": _rng_state(),
        }
        self._state = json.dumps(header | dict(state))
        self.folder = root / f"step-{step:06d}-{epoch[:8]}"
        self.scratch = root / f".{self.folder.name}.partial"
        self.nbytes = 0
        """In all, once it has begun."""
        self.began = time.monotonic()
        self.seconds = 0.0
        """That it took, once it is over."""
        self._error: BaseException | None = None
        try:
            root.mkdir(parents=True, exist_ok=True)
            for leftover in root.glob(".step-*.partial"):  # cut off by a crash
                _remove(leftover)
            self.scratch.mkdir()
            reserve(self.scratch, ranks)
        except OSError as error:
            raise self._failed(error) from error
        point("checkpoint.begun")

    def begin(self, own: Writer, nbytes: list[int]) -> None:
        """The ranks, this one's writer among them, have begun to write so many bytes each."""
        self._own, self.nbytes = own, sum(nbytes)
        self._thread = threading.Thread(target=self._run, daemon=True, name="checkpoint-end")
        self._thread.start()

    @property
    def written(self) -> int:
        """Bytes that the ranks have put into files so far."""
        try:
            return sum(p.stat().st_size for p in self.scratch.glob("*/*.safetensors"))
        except OSError:  # it was renamed meanwhile
            return self.nbytes

    def over(self, wait_s: float = 0.0) -> bool:
        """Whether it came to an end, good or bad, after a wait of up to so long."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def check(self) -> None:
        """Once it is over, and durable if it went well. Raises FencedError if another learner has
        taken over, SppoError if the disk is full.
        """
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._complete()
        except OSError as error:
            self._error = self._failed(error)
            self._error.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
        self.seconds = time.monotonic() - self.began

    def _complete(self) -> None:
        files = self._parts()
        (self.scratch / manifest.STATE).write_text(self._state, encoding="utf-8")
        manifest.write(self.scratch, files)
        point("checkpoint.written")
        for name in (manifest.STATE, manifest.NAME):
            flush(self.scratch / name)
        for folder in {(self.scratch / name).parent for name in files}:
            flush(folder)
        flush(self.scratch)
        point("checkpoint.flushed")
        self._confirm()
        if self.folder.exists():  # the same step of the same life, written again
            shutil.rmtree(self.folder)
        self.scratch.rename(self.folder)
        point("checkpoint.renamed")
        flush(self._root)
        self._retire()

    def _retire(self) -> None:
        """Delete old ones. One of a later step is by a life that this one replaced: it is set
        aside, for the next life goes on from here.
        """
        others = [each for each in manifest.folders(self._root) if each != self.folder]
        for beyond in [each for each in others if manifest.step(each) > self.step]:
            others.remove(beyond)
            log.warning("%s is by a learner that was replaced: it is set aside", beyond)
            beyond.rename(beyond.with_name(f"{beyond.name}.replaced"))
        for old in others[: len(others) - (self._keep - 1)]:
            _remove(old)

    def _parts(self) -> dict[str, Any]:
        """What each rank has written; their notes are removed. Raises OSError if one could not,
        when none writes any more.
        """
        files: dict[str, Any] = {}
        wrong: list[str] = []
        for rank in range(self._ranks):
            part = self._part(rank)
            if "error" in part:
                wrong.append(f"rank {rank}: {part['error']}" if rank else part["error"])
            files |= part.get("files", {})
        if wrong:
            raise OSError(wrong[0])
        for rank in range(self._ranks):
            (self.scratch / part_name(rank)).unlink()
        return files

    def _part(self, rank: int) -> dict[str, Any]:
        """How this rank's part went, once it is over."""
        note, (pause, most) = self.scratch / part_name(rank), LOOK_S
        while not note.exists():
            if rank == 0 and self._own.error:
                return {"error": self._own.error}
            if not self.scratch.is_dir():
                self._confirm()  # whoever took over has removed it
                raise FileNotFoundError(f"{self.scratch} was removed while it was written")
            time.sleep(pause)
            pause = min(2 * pause, most)
        part: dict[str, Any] = json.loads(note.read_bytes())
        return part

    def _failed(self, error: OSError) -> SppoError:
        shutil.rmtree(self.scratch, ignore_errors=True)
        return SppoError(
            f"checkpoint of step {self.step} was not written to {self._root}: {error}; free some "
            "disk space"
        )


def restore_rng(state: dict[str, Any]) -> None:
    """Put torch's random state back."""
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch_rng"]), dtype=torch.uint8))


def _remove(folder: Path) -> None:
    """Delete it; what cannot be deleted harms no other checkpoint."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        log.warning("%s could not be deleted: %s; delete it by hand", folder, error)


def _rng_state() -> str:
    return bytes(torch.get_rng_state().numpy().tobytes()).hex()


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " × ".join(map(str, shape)) or "a number"


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on disk when this returns."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
