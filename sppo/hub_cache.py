"""Whether this machine keeps something of the Hugging Face hub: a look into the cache's folders,
without a library and without a network.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


def home() -> Path:
    """HF_HOME, or `huggingface` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("HF_HOME") or os.path.join(base, "huggingface"))


def keeps(kind: Literal["models", "datasets"], name: str) -> bool:
    """Whether the hub's own tools have fetched something of `owner/name`."""
    files = Path(os.environ.get("HF_HUB_CACHE") or home() / "hub")
    return (files / f"{kind}--{name.replace('/', '--')}" / "snapshots").is_dir()


def is_path(name: str) -> bool:
    """Whether a name can be a folder's alone: on the hub there are `owner/name`s."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1
