"""Tests of a program, run beside it: in a process that the program cannot reach, they call it by
`remote`. Each test's verdict is one line of the output.

Standard library only: it is loaded in the sandbox.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import io
import os
import sys
from typing import Any

from sppo.scorer.code import remote


def run(given: dict[str, Any]) -> None:
    """Run tests that were read by `sppo.scorer.code.cases`:

        {"prelude": "...", "tests": ["assert f(1) == 2"], "entry": "f" or "",
         "calls": [{"name": "f", "arguments": [1], "expected": 2}], "channel": 5}

    With `entry` the tests define `check`, which is called with the program's function of that name.
    """
    out = os.dup(1)
    sys.stdout = io.StringIO()  # what tests print is no verdict
    program = remote.Program(given["channel"])
    for test in given["tests"]:
        os.write(
            out, b"1\n" if _passes(program, given["prelude"], test, given["entry"]) else b"0\n"
        )
    for call in given["calls"]:
        os.write(out, b"1\n" if _returns(program, call) else b"0\n")


def _passes(program: remote.Program, prelude: str, test: str, entry: str) -> bool:
    try:
        space: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        exec(compile(prelude, "prelude", "exec"), space)
        needed = [name for name in asked(test) if name not in space]
        modules = modules_of(test).intersection(needed)
        space |= {name: importlib.import_module(name) for name in modules}
        theirs = [name for name in needed if name not in modules]
        space |= program.names(theirs)
        if entry:
            space[entry] = program.names([entry])[entry]
        exec(compile(test, "test", "exec"), space)
        if entry and callable(space.get("check")):
            space["check"](space[entry])
    except BaseException:  # noqa: BLE001 - a test that does not come to its end is not passed
        return False
    return True


def asked(test: str) -> list[str]:
    """The names that a test takes from the program: those that it neither defines nor has built in.

    A built-in name is taken only where the test names nothing else: `assert sum(1, 2) == 3` is
    about a `sum` of the program's, `assert set(f(1)) == {2}` is not about a `set`. Modules of the
    standard library (`modules_of`) are never the program's.
    """
    tree = ast.parse(test)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {(each.asname or each.name).split(".")[0] for each in node.names}
    free = list(dict.fromkeys(node.id for node in names if node.id not in defined))
    own = [name for name in free if not hasattr(builtins, name)]
    return own if own or len(free) != 1 or defined else free


def modules_of(test: str) -> set[str]:
    """The modules of the standard library whose attributes a test uses, as in `math.pi`."""
    bases = {
        node.value.id
        for node in ast.walk(ast.parse(test))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return bases & sys.stdlib_module_names


def _returns(program: remote.Program, call: dict[str, Any]) -> bool:
    try:
        name = call["name"]
        found = program.names([name, "Solution"])
        function = found[name] if name in found else getattr(found["Solution"](), name)
        value = _listed(function(*call["arguments"]))
    except BaseException:  # noqa: BLE001 - as above
        return False
    return bool(value == call["expected"] or [value] == call["expected"])


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if type(value) in (list, tuple):
        return [_listed(each) for each in value]
    if type(value) is dict:
        return {str(k): _listed(v) for k, v in value.items()}
    return value
