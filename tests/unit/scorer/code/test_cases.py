"""Tests of a row, in the published formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sppo.scorer.code.cases import Cases, read

CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"


def test_mbpp() -> None:
    row = {
        "test_list": ["assert f(1) == 2"],
        "test_setup_code": "N = 1",
        "test_imports": ["import re"],
    }
    assert read(row, "test_list") == Cases(tests=("assert f(1) == 2",), prelude="import re\nN = 1")


def test_humaneval_with_the_helpers_of_its_prompt() -> None:
    prompt = "def helper(x):\n    return x\n\ndef f(x):\n    '''Doc.'''\n"
    found = read({"test": CHECK, "entry_point": "f", "prompt": prompt}, "test")
    assert found == Cases(tests=(CHECK,), entry="f", prelude="def helper(x):\n    return x")


def test_asserts_as_text_are_counted_apart() -> None:
    found = read({"tests": "import math\nassert f(1) == 2\nassert f(2) == math.pi"}, "tests")
    assert found.prelude == "import math"
    assert found.tests == ("assert f(1) == 2", "assert f(2) == math.pi")
    assert read({"tests": "x = f(1)\nassert x == 2\nassert x"}, "tests").count == 1


def test_apps() -> None:
    streams = json.dumps({"inputs": ["1\n", ["a", "b"]], "outputs": ["2\n", "c"]})
    assert read({"io": streams}, "io").streams == (("1\n", "2\n"), ("a\nb", "c"))
    calls = {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}
    (call,) = read({"io": calls}, "io").calls
    assert call == {"name": "add", "arguments": [1, 2], "expected": 3}


def test_livecodebench() -> None:
    stdin = [{"input": "1", "output": "2", "testtype": "stdin"}]
    assert read({"tests": json.dumps(stdin)}, "tests").streams == (("1", "2"),)
    functional = [{"input": "[1]\n2", "output": "[3]", "testtype": "functional"}]
    row = {"tests": functional, "metadata": json.dumps({"func_name": "f"})}
    (call,) = read(row, "tests").calls
    assert call == {"name": "f", "arguments": [[1], 2], "expected": [3]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"test": "x"}, "scorer.options.tests = 'tests': the row has no such column; it has test"),
        ({"tests": None}, "tests is null, and holds no tests"),
        ({"tests": []}, "tests is a list, and holds no tests"),
        ({"tests": ""}, "tests holds no tests"),
        ({"tests": ["assert f("]}, "a test is no Python"),
        ({"tests": CHECK}, "entry_point names no function"),
        ({"tests": {"inputs": [1], "outputs": []}}, "lists inputs and outputs of one length"),
        ({"tests": [{"input": "1"}]}, "needs input and output, and has input"),
        (
            {"tests": [{"input": "1", "output": "1", "testtype": "functional"}]},
            "metadata names no func_name",
        ),
    ],
)
def test_a_row_without_tests_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(row, "tests")
