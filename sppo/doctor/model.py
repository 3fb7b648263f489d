"""Files of the model: there, whole, of the size that the index says. No weight is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sppo import models
from sppo.doctor.findings import Finding, Run, fail, ok, warn
from sppo.launch import model_check

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def files(run: Run) -> list[Finding]:
    """The folder that `model.name` means, if it is on this disk."""
    name = run.config.model.name
    folder = models.on_disk(run.config.model)
    if folder is None:
        return [_absent(name)]
    shapes = model_check.headers(str(folder), name)
    held = _held(folder)
    said = f"{name}: {len(shapes):,} weights, {held / 2**30:.2f} GiB, in {folder}"
    told = _told(folder)
    if held < told:
        words = f"{said}; its index says {told / 2**30:.2f}"
        return [fail("model", words, "fetch the model again: some of its files are another's")]
    if not any((folder / file).is_file() for file in TOKENIZERS):
        return [fail("model", f"{said}; there is no tokenizer", "put the model's own beside it")]
    return [ok("model", said)]


def _absent(name: str) -> Finding:
    """Nothing of it is here, or only what it is made of."""
    missing = models.absent(name)
    if not missing:
        return ok("model", f"{name} is made of its package at the first start")
    what, _, mend = missing.partition(": ")
    if not mend:
        what, _, mend = missing.partition("; ")
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    fetched = what.startswith("the model ")
    if fetched and not (offline and name != models.PACKAGED):
        return warn("model", f"{what} is not on this disk", mend)
    return fail("model", f"model.name = {name!r}: {what}", mend)


def _held(folder: Path) -> int:
    """Bytes of tensors in its files: what is behind each header."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            total += file.stat().st_size - 8 - int.from_bytes(stream.read(8), "little")
    return total


def _told(folder: Path) -> int:
    """What the index says of it; 0 where it says nothing."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return 0
    told = json.loads(index.read_text(encoding="utf-8")).get("metadata") or {}
    return int(told.get("total_size") or 0)
