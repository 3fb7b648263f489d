"""The shape of the code, counted: sizes of files, functions and classes, what a reader has to read,
who may import what, and where the tests stand. `pytest -s` prints the figures.

A line counts as one for each 100 columns that it fills.
"""

from __future__ import annotations

import ast
import re
import statistics
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = 100
OBJECTIVE_WORDS = {"anchor", "target", "weight"}

FILE_LINES = 400
MEDIAN_LINES = 130
FUNCTION_LINES = 60
METHODS = 15
LOOP_LINES = 150
READING_FILES = 10
READING_LINES = 2000

UNMIRRORED = {
    "sppo/kernels/linear/gpu_kernels.py": "Triton: tests/kernels interprets and compiles it",
    "sppo/kernels/logits/gpu_kernels.py": "Triton: tests/kernels interprets and compiles it",
    "sppo/kernels/loss/gpu_kernels.py": "Triton: tests/kernels interprets and compiles it",
    "sppo/generators/transformers_engine.py": "needs a model: tests/integration/test_engine.py",
    "sppo/weights/vllm_gloo.py": "needs vLLM: tests/integration/test_engine.py",
    "sppo/weights/vllm_transfer.py": "needs vLLM: tests/integration/test_engine.py",
    "sppo/weights/vllm_nccl.py": "needs vLLM: tests/integration/test_nccl.py",
    "sppo/weights/vllm_shared.py": "needs vLLM: tests/integration/test_nccl.py",
    "sppo/weights/vllm_reload.py": "needs vLLM: tests/integration/test_nccl.py",
}
"""Modules with logic whose tests stand elsewhere, with the reason. At most ten."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def count_lines(lines: Iterable[str]) -> int:
    return sum(max(1, -(-len(line) // COLUMNS)) for line in lines)


def file_lines(path: Path) -> int:
    return count_lines(path.read_text(encoding="utf-8").splitlines())


def function_lines(path: Path) -> dict[str, int]:
    """Lines of each function, from `def` to its last: signature and docstring too."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {
        f"{short(path)}:{node.name}": count_lines(lines[node.lineno - 1 : node.end_lineno])
        for node in ast.walk(tree(path))
        if isinstance(node, Function)
    }


def methods(path: Path) -> dict[str, int]:
    return {
        f"{short(path)}:{node.name}": sum(isinstance(each, Function) for each in node.body)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    }


def imported(module: ast.Module) -> set[str]:
    """The first names of what is imported absolutely, anywhere in the module."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", "") or getattr(node, "id", "")


def asks_for_objective(module: ast.Module) -> list[int]:
    """Lines that compare an `anchor`, `target` or `weight`, or match on one: what an objective
    decides.
    """
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Compare):
            decides = any(
                isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops
            )
            if decides and any(
                _name(each) in OBJECTIVE_WORDS for each in (node.left, *node.comparators)
            ):
                found.append(node.lineno)
        elif isinstance(node, ast.Match) and _name(node.subject) in OBJECTIVE_WORDS:
            found.append(node.lineno)
    return found


def calls(module: ast.Module, owner: str, name: str) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr == name and _name(node.value) == owner
        for node in ast.walk(module)
    )


def holds_logic(module: ast.Module) -> bool:
    """Whether a function does more than stand for an interface."""

    def does(node: ast.stmt) -> bool:
        return not isinstance(node, ast.Pass) and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        )

    return any(
        isinstance(node, Function) and any(does(each) for each in node.body)
        for node in ast.walk(module)
    )


def mirror(path: Path) -> Path:
    inside = path.relative_to(ROOT / "sppo")
    return ROOT / "tests" / "unit" / inside.parent / f"test_{inside.name}"


def reading_list() -> list[str]:
    """The files that CONTRIBUTING.md names, in reading order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("One training step, in reading order")
    section = rest.split("\n#")[0]
    return re.findall(r"^\d+\..*?`([^`]+\.py)`", section, re.MULTILINE)


def named_paths(page: str) -> list[str]:
    """The paths that a page names in backticks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"`((?:sppo|cli|tests|docs|examples)/[\w./-]*)`", text)


def over(figures: dict[str, int], most: int) -> dict[str, int]:
    return {name: figure for name, figure in figures.items() if figure > most}


def tell(bar: str, figure: object, most: object, names: Iterable[str] = ()) -> None:
    print(f"\n  {bar}: {figure} (at most {most})", end="")
    for name in names:
        print(f"\n    {name}", end="")


def test_lines_are_counted_at_a_hundred_columns() -> None:
    assert count_lines(["", "x", "x" * 100, "x" * 101, "x" * 250]) == 1 + 1 + 1 + 2 + 3


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("if a.anchor == 'base': pass", True),
        ("if 'base' != target: pass", True),
        ("if weight in ('a', 'b'): pass", True),
        ("match settings.weight:\n  case 'x': pass", True),
        ("if weight > 0: pass", False),
        ("if weights == 'x': pass", False),
        ("if anchor is None: pass", False),
    ],
)
def test_choices_of_an_objective_are_found(source: str, found: bool) -> None:
    assert bool(asks_for_objective(ast.parse(source))) == found


@pytest.mark.parametrize(
    ("source", "logic"),
    [
        ("class P(Protocol):\n  def f(self): ...\n  async def g(self):\n    '''Does.'''", False),
        ("A = 1", False),
        ("def f():\n  '''Gives.'''\n  return 1", True),
    ],
)
def test_interfaces_hold_no_logic(source: str, logic: bool) -> None:
    assert holds_logic(ast.parse(source)) == logic


def test_files_are_short() -> None:
    figures = {short(path): file_lines(path) for path in sources("sppo", "cli")}
    long = over(figures, FILE_LINES)
    median = statistics.median(figure for figure in figures.values() if figure > 3)
    largest = max(figures, key=figures.__getitem__)
    tell("largest file", f"{figures[largest]} {largest}", FILE_LINES, map(str, long.items()))
    tell("median file", median, MEDIAN_LINES)
    tell("files, lines", f"{len(figures)}, {sum(figures.values())}", "-")
    assert not long
    assert median <= MEDIAN_LINES


def test_functions_are_short() -> None:
    figures: dict[str, int] = {}
    for path in sources("sppo", "cli"):
        figures |= function_lines(path)
    long = over(figures, FUNCTION_LINES)
    longest = max(figures, key=figures.__getitem__)
    tell(
        "longest function", f"{figures[longest]} {longest}", FUNCTION_LINES, map(str, long.items())
    )
    assert not long


def test_classes_have_few_methods() -> None:
    figures: dict[str, int] = {}
    for path in sources("sppo", "cli"):
        figures |= methods(path)
    large = over(figures, METHODS)
    tell("methods of a class", max(figures.values()), METHODS, map(str, large.items()))
    assert not large


def test_the_learners_loop_is_a_story() -> None:
    lines = file_lines(ROOT / "sppo/learner/loop.py")
    tell("lines of learner/loop.py", lines, LOOP_LINES)
    assert lines <= LOOP_LINES


def test_a_training_step_is_read_in_ten_files() -> None:
    files = reading_list()
    figures = {name: file_lines(ROOT / name) for name in files}
    tell("files of a training step", len(files), READING_FILES)
    tell("their lines", sum(figures.values()), READING_LINES, map(str, figures.items()))
    assert 0 < len(files) <= READING_FILES
    assert len(set(files)) == len(files)
    assert "sppo/learner/loop.py" in files
    assert sum(figures.values()) <= READING_LINES


def test_redis_is_imported_by_the_transport_alone() -> None:
    users = [short(path) for path in sources("sppo", "cli") if "redis" in imported(tree(path))]
    tell("importers of redis", len(users), "those in sppo/transport", users)
    assert users
    assert all(name.startswith("sppo/transport/") for name in users)


def test_the_contract_on_redis_names_every_part_but_the_transport() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    contract = next(each for each in contracts if each["name"] == "redis only in transport")
    parts = {f"sppo.{path.stem}" for path in (ROOT / "sppo").glob("*.py")}
    parts |= {f"sppo.{path.parent.name}" for path in (ROOT / "sppo").glob("*/__init__.py")}
    parts = parts - {"sppo.__init__", "sppo.transport"} | {"sppo_cli"}
    assert set(contract["source_modules"]) == parts


def test_only_objectives_ask_what_the_objective_is() -> None:
    asks = [
        f"{short(path)}:{line}"
        for path in sources("sppo", "cli")
        if not short(path).startswith("sppo/learner/objectives/")
        for line in asks_for_objective(tree(path))
    ]
    tell("questions of an anchor, target or weight outside objectives", len(asks), 0, asks)
    assert not asks


def test_one_module_installs_signal_handlers_and_one_locks_files() -> None:
    handlers = [p for p in sources("sppo", "cli") if calls(tree(p), "signal", "signal")]
    lockers = [p for p in sources("sppo", "cli") if "fcntl" in imported(tree(p))]
    tell("installers of signal handlers", list(map(short, handlers)), "sppo/stop.py")
    tell("users of fcntl", list(map(short, lockers)), "sppo/locks.py")
    assert list(map(short, handlers)) == ["sppo/stop.py"]
    assert list(map(short, lockers)) == ["sppo/locks.py"]


def test_tests_stand_where_the_code_does() -> None:
    missing = [
        short(path)
        for path in sources("sppo")
        if holds_logic(tree(path)) and not mirror(path).exists()
    ]
    tell("modules whose tests stand elsewhere", len(missing), 10, missing)
    assert len(UNMIRRORED) <= 10
    assert set(missing) == UNMIRRORED.keys()


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_that_is_named_is_there(page: str) -> None:
    gone = [path for path in named_paths(page) if not (ROOT / path).exists()]
    assert not gone
