"""The `code` scorer as it is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sppo.scorer import calls
from sppo.scorer.code import sandbox
from sppo.scorer.code.sandbox import Outcome, Sandbox
from sppo.scorer.code.scorer import Code
from sppo.types import ScoreRequest

ADD = "```python\ndef add(a, b):\n    return a + b\n```"
SUBTRACT = "def add(a, b):\n    return a - b\n"
ASSERTS = ["assert add(1, 2) == 3", "assert add(4, 0) == 4"]


def score(data: dict[str, Any], *completions: str, **options: Any) -> dict[str, Any]:
    request = ScoreRequest(uid="1", question="", completions=completions, data=data)
    return Code(timeout_s=20, memory_mib=256, **options).score(request)


def test_all_tests_must_pass_or_their_share_is_paid() -> None:
    found = score({"tests": ASSERTS}, ADD, SUBTRACT, "def add(a, b:")
    assert found["rewards"] == [1, 0, 0]
    assert found["details"][1] == {"passed": 1, "of": 2}
    assert score({"tests": ASSERTS}, SUBTRACT, share=True)["rewards"] == [0.5]


def test_output_is_compared_outside_but_for_spaces_at_ends() -> None:
    tests = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7"]}
    right = "print(sum(map(int, input().split())), ' \\n')"
    assert score({"tests": json.dumps(tests)}, right, "print(3)")["rewards"] == [1, 0]


def test_a_body_is_put_behind_its_prompt() -> None:
    check = "def check(candidate):\n    assert candidate(2) == 4\n"
    data = {"test": check, "entry_point": "f", "prompt": "def f(x):\n"}
    found = score(data, "    return x * x\n", "def f(x):\n    return x\n", tests="test")
    assert found["rewards"] == [1, 0]


def test_after_a_late_input_no_other_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def late(self: Sandbox, code: str, stdin: str) -> Outcome:
        asked.append(stdin)
        return Outcome(output=b"", code=None, why="late")

    monkeypatch.setattr(Sandbox, "program", late)
    tests = {"inputs": ["1", "2"], "outputs": ["1", "2"]}
    found = score({"tests": tests}, "print(input())", share=True)
    assert found["details"] == [{"passed": 0, "of": 2, "why": "late"}]
    assert asked == ["1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": 0.0}, "scorer.options.timeout_s = 0: expected seconds above 0"),
        ({"memory_mib": 8}, "scorer.options.memory_mib = 8: an interpreter needs"),
        ({"test": "x"}, "scorer.options.test: no such option of code; did you mean tests?"),
    ],
)
def test_options_that_are_wrong_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(calls.OptionError, match=message.replace("?", r"\?")):
        calls.make("code", Code, options)


def test_it_refuses_where_programs_reach_out_unless_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sandbox, "reach", lambda self: ["files", "sockets"])
    monkeypatch.setattr(sandbox, "protections", lambda: {"landlock": False, "seccomp": True})
    with pytest.raises(RuntimeError, match=r"files and sockets here, as this kernel gives no land"):
        Code().setup()
    Code(unsafe=True).setup()
