"""The hub's cache on this disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo import hub_cache


def test_what_the_hubs_tools_have_fetched_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "hub" / "models--a--b" / "snapshots").mkdir(parents=True)
    assert hub_cache.keeps("models", "a/b")
    assert not hub_cache.keeps("datasets", "a/b")


@pytest.mark.parametrize("name", ["./a", "/a/b", "~/a", "a", "a/b/c"])
def test_what_only_a_folder_is_called(name: str) -> None:
    assert hub_cache.is_path(name)
    assert not hub_cache.is_path("owner/name")
