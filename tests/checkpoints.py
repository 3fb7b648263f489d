"""Checkpoints for tests: written by one rank in one go, and read whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from sppo.learner import stored
from sppo.learner.checkpoint import Writing
from sppo.learner.writer import Writer

Tensors = Iterable[tuple[str, Tensor]]
EPOCH = "abc12345ffff"


def save(
    root: Path, step: int, *, model: Tensors, optimizer: Tensors = (),
    snapshots: Mapping[str, Tensors] = MappingProxyType({}), epoch: str = EPOCH, keep: int = 2,
    state: Mapping[str, Any] = MappingProxyType({}), confirm: Callable[[], None] = lambda: None,
) -> Path:  # fmt: skip
    """Its folder, once it is durable."""
    writing = Writing(root, step=step, epoch=epoch, state=state, keep=keep, confirm=confirm)
    writer = Writer()
    kinds = {"model": model, "optimizer": optimizer, **snapshots}
    writing.begin(writer, [writer.begin(writing.scratch, kinds, rank=0, size=1)])
    while not writing.over(1.0):
        pass
    writing.check()
    return writing.folder


def load(folder: Path, kind: str = "model") -> dict[str, Tensor]:
    """All tensors of a kind."""
    with stored.opened(folder, kind) as there:
        return {name: there[name][...] for name in sorted(there.names())}
