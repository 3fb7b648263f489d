"""The base model's answers, kept for later evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.errors import ConfigError
from sppo.learner.base_answers import BaseAnswers
from sppo.types import Answer
from tests import makers


class Tokenizer:
    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


def test_they_are_read_as_they_were_kept(tmp_path: Path) -> None:
    groups = [makers.group(f"eval-e-0-{i:06d}", preferences=[[0.5, 1], [0, 0.5]]) for i in (0, 7)]
    BaseAnswers(tmp_path, Tokenizer()).keep(groups)
    answer = Answer(token_ids=(4,), text="4", finish_reason="stop")
    assert BaseAnswers(tmp_path, Tokenizer()).read() == {0: answer, 7: answer}
    assert [path.name for path in tmp_path.iterdir()] == ["base_answers.json"]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"x": {}}'])
def test_a_file_that_is_gone_or_damaged_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "base_answers.json").write_text(text)
    with pytest.raises(ConfigError, match=r"base_answers.json, .* cannot be read \(.*put it back"):
        BaseAnswers(tmp_path, Tokenizer()).read()
