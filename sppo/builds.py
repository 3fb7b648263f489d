"""Packages that are there, and built for another torch than the one that is there.

vLLM's CPU build names torchvision, torchaudio and torchcodec, which nothing here uses. Where pip
takes a torch for CPUs from one index and these from another, they are builds for CUDA: none of them
loads, and Transformers, which imports torchvision where it is installed, fails with it. To this
process and those it forks they are then as if they were not installed.
"""

from __future__ import annotations

import importlib.util
import sys

UNUSED = ("torchvision", "torchaudio", "torchcodec")
CPU = "+cpu"


def foreign() -> list[str]:
    """Which of them are for another torch: beside `torch 2.13.0+cpu` whatever is not `+cpu`."""
    there = [name for name in UNUSED if importlib.util.find_spec(name) is not None]
    if not there or not _version("torch").endswith(CPU):
        return []
    return [name for name in there if not _version(name).endswith(CPU)]


def hide_foreign() -> None:
    """Make `import` and `find_spec` say that they are not there."""
    for name in foreign():
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def _version(package: str) -> str:
    """Empty where it is not installed."""
    import importlib.metadata  # takes its time, and nobody needs it where none of them is there

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
