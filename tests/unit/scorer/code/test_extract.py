"""The program in a completion."""

from __future__ import annotations

import pytest

from sppo.scorer.code.extract import program_of


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1\n"),
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```\nor\n```py\nx = 2\n```", "x = 2\n"),
        ("~~~python\ns = '''\n```\n'''\n~~~", "s = '''\n```\n'''\n"),
        ("First\n```python\nx = 1\ny =", "x = 1\ny =\n"),
        ("    return a + b\n", "    return a + b\n"),
    ],
)
def test_the_last_block_or_all(text: str, program: str) -> None:
    assert program_of(text) == program
