"""Packages that are there, and built for another torch than the one that is there.

vLLM's CPU build names torchvision, torchaudio and torchcodec, which nothing here uses. Where pip
takes a torch for CPUs from one index and these from another, they are builds for CUDA: none of them
loads, and Transformers, which imports torchvision where it is installed, fails with it. To this
process and all that it starts they are then as if they were not installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

UNUSED = ("torchvision", "torchaudio", "torchcodec")
CPU = "+cpu"
AT_START = Path(__file__).with_name("at_start")
"""Has a `sitecustomize`, which an interpreter imports before anything else: vLLM's engine is
spawned, and imports Transformers before it comes to us.
"""


def foreign() -> list[str]:
    """Which of them are for another torch: beside `torch 2.13.0+cpu` whatever is not `+cpu`."""
    there = [name for name in UNUSED if importlib.util.find_spec(name) is not None]
    if not there or not _version("torch").endswith(CPU):
        return []
    return [name for name in there if not _version(name).endswith(CPU)]


def hide_foreign() -> None:
    """Make `import` and `find_spec` say that they are not there, in interpreters to come too."""
    found = foreign()
    for name in found:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if found and str(AT_START) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(AT_START), *paths]))


def _version(package: str) -> str:
    """Empty where it is not installed."""
    import importlib.metadata  # takes its time, and nobody needs it where none of them is there

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
