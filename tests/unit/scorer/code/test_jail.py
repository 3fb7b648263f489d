"""What a program's process takes from itself; that it does is in tests/integration/test_code.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.scorer.code import jail


def test_an_interpreter_in_a_private_folder_is_reachable_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jail._reachable("/usr")
    (tmp_path / "private").mkdir(mode=0o700)
    assert not jail._reachable(str(tmp_path / "private"))


def test_a_process_whose_parent_is_another_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    def end(code: int) -> None:
        ended.append(code)
        raise SystemExit(code)

    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr("sppo.stop.end_with_parent", lambda: None)
    with pytest.raises(SystemExit):
        jail.main(0, -1)
    assert ended == [1]
