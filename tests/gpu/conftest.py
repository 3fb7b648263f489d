"""Tests for a machine with GPUs, and the table that they leave to be sent back.

A test says how many GPUs it needs with `@pytest.mark.gpus(n)`. Where there are fewer it is skipped,
and what its docstring says is told at the end.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PACKAGES = ("sppo", "torch", "triton", "vllm", "transformers", "ray")
TABLE = pytest.StashKey[list[tuple[str, str, float, str]]]()
"""(test, what was measured, its value, its unit)."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    there = torch.cuda.device_count()
    for item in items:
        mark = item.get_closest_marker("gpus")
        if mark is not None and there < mark.args[0]:
            would = " ".join((inspect.getdoc(getattr(item, "obj", None)) or "").split())
            reason = f"{mark.args[0]} GPU(s) wanted, {there} here. It would: {would}"
            item.add_marker(pytest.mark.skip(reason=reason))


class Figures:
    """What one test measured."""

    def __init__(self, name: str, table: list[tuple[str, str, float, str]]) -> None:
        self._name, self._table = name, table

    def add(self, what: str, value: float, unit: str) -> None:
        """One line of the table."""
        self._table.append((self._name, what, float(value), unit))


@pytest.fixture(autouse=True)
def _leave_the_gpu() -> Iterator[None]:
    """Nothing of a test stays in this process's share of the memory: the next engine wants most of
    it.
    """
    yield
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Lines of the table; how long the test took is one by itself."""
    found = Figures(request.node.name, request.config.stash[TABLE])
    started = time.monotonic()
    yield found
    found.add("whole test", time.monotonic() - started, "s")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for report in skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        terminalreporter.write_line(f"{report.nodeid}: {why}")
    if config.stash[TABLE]:
        for line in page(config.stash[TABLE], terminalreporter.stats):
            terminalreporter.write_line(line)


def page(table: list[tuple[str, str, float, str]], stats: dict[str, list[Any]]) -> list[str]:
    """Machine, versions, outcome and figures; also written to gpu-report.json."""
    machine = {"platform": platform.platform(), "python": platform.python_version(), **gpus()}
    versions = {name: version(name) for name in PACKAGES} | {"cuda": str(torch.version.cuda)}
    outcome = {kind: len(stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")}
    failed = [each.nodeid for kind in ("failed", "error") for each in stats.get(kind, [])]
    rows = [{"test": t, "what": w, "value": v, "unit": u} for t, w, v, u in table]
    report = {"machine": machine, "versions": versions, "outcome": outcome, "failed": failed}
    path = Path(os.environ.get("GPU_REPORT", ROOT / "gpu-report.json"))
    path.write_text(json.dumps(report | {"figures": rows}, indent=1))
    head = [f"{k}: {v}" for k, v in (machine | versions | outcome).items()]
    lines = [f"{t:<58} {w:<34} {v:>10.4g} {u}" for t, w, v, u in table]
    return ["", "----- send this back -----", *head, *(f"failed: {n}" for n in failed), *lines,
            f"----- the same is in {path} -----"]  # fmt: skip


def version(name: str) -> str:
    """Of an installed package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def gpus() -> dict[str, str]:
    """Names, memory, driver and how the GPUs are joined, as nvidia-smi says."""
    found: dict[str, str] = {}
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    for key, arguments in {"gpus": query, "topology": ["topo", "-m"]}.items():
        try:
            done = subprocess.run(
                ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20
            )
        except FileNotFoundError:
            return {"gpus": "no nvidia-smi"}
        found[key] = done.stdout.strip().replace("\n", "; " if key == "gpus" else "\n")
    return found
