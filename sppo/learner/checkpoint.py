"""Checkpoints: model, optimizer, random state, version, and the ledger of tickets, as one unit.

    RUN/checkpoints/step-000020-<epoch>/
        model.safetensors       float32 master weights
        optimizer.safetensors   AdamW's moments and counts
        anchor.safetensors      the snapshot that generators run, where it is not the model itself
        reference.safetensors   the reference of the objective, where it is not the base model
        state.json              versions (n, published), parent, ledger, random state, evaluations
        manifest.json           size and checksum of each of these (`sppo.learner.manifest`)

Written to a temporary folder, flushed to disk, renamed, and the parent folder flushed: a checkpoint
is there whole or not at all. What was damaged since is refused before it is loaded. Nothing is
pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sppo.errors import SppoError
from sppo.faults import point
from sppo.learner import manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    folder: Path
    step: int
    state: dict[str, Any]

    @property
    def model(self) -> Path:
        """Master weights by name."""
        return self.folder / "model.safetensors"

    def snapshot(self, name: str) -> Path | None:
        """A snapshot's weights by name, if it was saved."""
        path = self.folder / f"{name}.safetensors"
        return path if path.exists() else None

    @property
    def optimizer(self) -> Path:
        """The optimizer's tensors by name."""
        return self.folder / "optimizer.safetensors"


def save(
    root: Path,
    *,
    step: int,
    epoch: str,
    model: Iterable[tuple[str, Tensor]],
    optimizer: Iterable[tuple[str, Tensor]],
    snapshots: Mapping[str, Iterable[tuple[str, Tensor]]] = MappingProxyType({}),
    state: dict[str, Any],
    keep: int,
    confirm: Callable[[], None] = lambda: None,
) -> Path:
    """Write a checkpoint durably, then delete all but the newest `keep`.

    `confirm` is called before the checkpoint becomes visible, and may raise: a learner that was
    replaced writes none.

    Raises SppoError if the disk is full; what was there before is then untouched.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"step-{step:06d}-{epoch[:8]}"
    scratch = root / f".{final.name}.partial"
    try:
        for leftover in root.glob(".step-*.partial"):  # cut off by a crash
            shutil.rmtree(leftover)
        scratch.mkdir()
        point("checkpoint.begun")
        for name, tensors in {"model": model, "optimizer": optimizer, **snapshots}.items():
            kept = {k: v.detach().cpu().contiguous() for k, v in tensors}
            save_file(kept, scratch / f"{name}.safetensors")
        header = {
            "format": manifest.FORMAT,
            "step": step,
            "epoch": epoch,
            "torch_rng": _rng_state(),
        }
        (scratch / manifest.STATE).write_text(json.dumps(header | state), encoding="utf-8")
        manifest.write(scratch)
        point("checkpoint.written")
        for file in scratch.iterdir():
            flush(file)
        flush(scratch)
        point("checkpoint.flushed")
        confirm()
        if final.exists():  # the same step of the same life, written again
            shutil.rmtree(final)
        scratch.rename(final)
        point("checkpoint.renamed")
        flush(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise SppoError(
            f"checkpoint of step {step} was not written to {root}: {error}; free some disk space"
        ) from error
    for old in manifest.folders(root)[:-keep]:
        shutil.rmtree(old)
    return final


def newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint, or None. Raises ConfigError if it is damaged."""
    found = manifest.newest(root)
    if found is None:
        return None
    folder, state = found
    return Checkpoint(folder=folder, step=int(state["step"]), state=state)


def restore_rng(state: dict[str, Any]) -> None:
    """Put torch's random state back."""
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch_rng"]), dtype=torch.uint8))


def _rng_state() -> str:
    return bytes(torch.get_rng_state().numpy().tobytes()).hex()


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on disk when this returns."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
