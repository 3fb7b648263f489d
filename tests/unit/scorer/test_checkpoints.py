"""A scorer's model: its files, and its conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.errors import ConfigError
from sppo.scorer import checkpoints
from tests.unit.scorer.asking import QUESTION, request


def test_a_config_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for text in ("{", "[1]", '{"architectures": 3}'):
        config.write_text(text)
        with pytest.raises(ConfigError, match=r"scorer.options.model.*config.json cannot be read"):
            checkpoints.architectures(tmp_path)
    config.write_text("{}")
    assert checkpoints.architectures(tmp_path) == []


def test_a_name_that_is_nowhere_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"scorer.options.model = 'no/such/name': neither"):
        checkpoints.folder("no/such/name")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match=r"scorer.options.model.*no tokenizer"):
        checkpoints.tokenizer(str(tmp_path), tmp_path)


def test_a_prompt_is_its_messages_or_its_question() -> None:
    alone = checkpoints.chat(request())
    assert alone == [{"role": "user", "content": QUESTION}]
    assert checkpoints.as_text(alone) == QUESTION
    several = checkpoints.chat(request(messages=(("system", "short"), ("user", "one ?"))))
    assert checkpoints.as_text(several) == "SYSTEM: short\nUSER: one ?"


def test_rows_of_like_length_go_together_and_each_once() -> None:
    found = list(checkpoints.chunks([5, 1, 9, 2, 7], 2))
    assert found == [[1, 3], [0, 4], [2]]
    assert list(checkpoints.chunks([], 4)) == []
