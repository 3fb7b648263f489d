"""Files, presets and --set, as they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError


def test_an_unknown_file_lists_the_presets() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        config.load("no-such-file.toml")


def test_two_cases_of_one_section_are_not_merged(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[learner]\nranks = 2\n[Learner]\nsteps = 5\n[Scorer]\nname = "exact-match"\n')
    with pytest.raises(ConfigError) as caught:
        config.load(str(file))
    assert "did you mean learner?" in str(caught.value)
    assert "did you mean scorer?" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b'name = "a"\n[task]\nprompt = "R\xe9ponds: {question}"\n',
            r":3: not UTF-8: byte 0xe9 at byte 12 of the line",
        ),
        (b'\xef\xbb\xbfname = "\xff"\n', r":1: not UTF-8: byte 0xff at byte 12"),
        ('name = "a"\n'.encode("utf-16"), r":1: not UTF-8"),
        (b'name = "a"\nname = "b"\n', "not valid TOML.*line 2"),
        (b"a = " + b"[" * 5000, "not valid TOML"),
        (b"seed = " + b"9" * 5000, "not valid TOML"),
        (b"[optimizer]\nlr = nan\n", r"optimizer\.lr = nan.*finite"),
        (b"[task]\nparams = { x = inf }\n", r"task\.params: x must be .*inf"),
        (b"[learner]\nsteps = true\n", r"learner\.steps = True: must be a number"),
        (b"name = 2024\n", r"name = 2024: .*in quotes"),
    ],
)
def test_a_file_that_cannot_be_read_as_written_is_refused(
    tmp_path: Path, data: bytes, words: str
) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        config.load(str(file))


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(
        b'\xef\xbb\xbfname = "a"\r\n[task]\r\nprompt = "R\xc3\xa9ponds: {question}"\r\n'
    )
    loaded = config.load(str(file))
    assert (loaded.name, loaded.task.prompt) == ("a", "Réponds: {question}")
