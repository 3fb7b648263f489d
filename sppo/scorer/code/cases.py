"""Tests of a row, in the formats of MBPP, HumanEval, APPS and LiveCodeBench."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sppo.tasks.rows import kind

COLUMN = "tests"
"""The column with the tests, where no other is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """What a program is tried with: tests that call it, or inputs with the outputs they have."""

    tests: tuple[str, ...] = ()
    prelude: str = ""
    """Runs before each test, and defines what the program may not."""
    entry: str = ""
    """The function that a `check` of the tests is given."""
    calls: tuple[Mapping[str, Any], ...] = ()
    streams: tuple[tuple[str, str], ...] = ()
    """(standard input, expected standard output)"""

    @property
    def count(self) -> int:
        return len(self.tests) + len(self.calls) + len(self.streams)


def read(data: Mapping[str, Any], column: str) -> Cases:
    """The tests of a row. Raises ValueError naming what is wrong with them."""
    if column not in data:
        raise ValueError(
            f"scorer.options.tests = {column!r}: the row has no such column; it has "
            f"{', '.join(sorted(data))}"
        )
    value = data[column]
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        with contextlib.suppress(ValueError):  # Python may begin with a bracket too
            value = json.loads(value)
    if isinstance(value, str):
        cases = _text(value, data)
    elif isinstance(value, Mapping):
        cases = _apps(value)
    elif isinstance(value, list) and value and all(isinstance(x, str) for x in value):
        cases = _asserts(value, data)
    elif isinstance(value, list) and value and all(isinstance(x, Mapping) for x in value):
        cases = _pairs(value, data)
    else:
        raise ValueError(f"{column} is {kind(value)}, and holds no tests")
    if cases.count == 0:
        raise ValueError(f"{column} holds no tests")
    for text in (cases.prelude, *cases.tests):
        try:
            ast.parse(text)
        except SyntaxError as error:
            raise ValueError(f"{column}: a test is no Python: {error}: {text!r:.100}") from error
    return cases


def _asserts(tests: Sequence[str], data: Mapping[str, Any]) -> Cases:
    """MBPP: a list of statements."""
    setup = data.get("test_setup_code") or ""
    imports = data.get("test_imports") or []
    return Cases(tests=tuple(tests), prelude="\n".join([*imports, setup]))


def _text(value: str, data: Mapping[str, Any]) -> Cases:
    """HumanEval: a `check(candidate)`; other text is one test for each `assert` at its top."""
    tree = _parsed(value)
    if any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
        entry = data.get("entry_point")
        if not isinstance(entry, str) or not entry.isidentifier():
            raise ValueError("the tests define check(candidate), and entry_point names no function")
        return Cases(tests=(value,), entry=entry, prelude=_helpers(data, entry))
    asserts = [node for node in tree.body if isinstance(node, ast.Assert)]
    rest = [node for node in tree.body if not isinstance(node, ast.Assert)]
    plain = all(isinstance(node, ast.Import | ast.ImportFrom) for node in rest)
    if plain and asserts:
        return Cases(
            tests=tuple(ast.unparse(node) for node in asserts),
            prelude="\n".join(ast.unparse(node) for node in rest),
        )
    return Cases(tests=(value,) if tree.body else ())


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"the tests are no Python: {error}: {text!r:.100}") from error


def _helpers(data: Mapping[str, Any], entry: str) -> str:
    """Functions of the prompt that a check may use: the program's own are not asked."""
    prompt = data.get("prompt")
    try:
        tree = ast.parse(prompt if isinstance(prompt, str) else "")
    except SyntaxError:
        return ""
    kept = [n for n in tree.body if not isinstance(n, ast.FunctionDef) or n.name != entry]
    return "\n".join(ast.unparse(node) for node in kept)


def _apps(value: Mapping[str, Any]) -> Cases:
    """APPS: {"inputs": [...], "outputs": [...], "fn_name": "..."}."""
    inputs, outputs = value.get("inputs"), value.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError("the tests need lists inputs and outputs of one length")
    name = value.get("fn_name")
    if name:
        return Cases(
            calls=tuple(
                {"name": name, "arguments": list(i), "expected": o}
                for i, o in zip(inputs, outputs, strict=True)
            )
        )
    return Cases(
        streams=tuple((_stream(i), _stream(o)) for i, o in zip(inputs, outputs, strict=True))
    )


def _stream(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _pairs(value: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> Cases:
    """LiveCodeBench: [{"input": ..., "output": ..., "testtype": "stdin" | "functional"}]."""
    for each in value:
        if "input" not in each or "output" not in each:
            raise ValueError(f"a test needs input and output, and has {', '.join(each)}")
    if value[0].get("testtype", "stdin") == "stdin":
        return Cases(streams=tuple((_stream(x["input"]), _stream(x["output"])) for x in value))
    about = data.get("metadata")
    about = json.loads(about) if isinstance(about, str) else about
    name = about.get("func_name") if isinstance(about, Mapping) else None
    if not name:
        raise ValueError("the tests are functional, and metadata names no func_name")
    return Cases(
        calls=tuple(
            {
                "name": name,
                "arguments": [json.loads(line) for line in str(x["input"]).splitlines() if line],
                "expected": json.loads(str(x["output"])),
            }
            for x in value
        )
    )
