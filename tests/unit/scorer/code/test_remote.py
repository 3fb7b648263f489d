"""Values and calls between a program and its tests."""

from __future__ import annotations

import collections
import math
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sppo.scorer.code import remote
from sppo.scorer.code.remote import Handle, Lost, Program, decode, encode

PROGRAM = """
class Always(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
def always(x): return Always(x)
def add(a, b=0): return a + b
def sort(items): items.sort()
def count(n):
    for i in range(n): yield i
def fail(kind): raise {"v": ValueError, "k": KeyboardInterrupt}[kind]("no")
"""


@pytest.fixture
def program() -> Iterator[Program]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=remote.serve, args=(PROGRAM, theirs.fileno()), daemon=True)
        thread.start()
        yield Program(ours.fileno())
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(10**50), 0.1, math.inf, "x\n", b"ab", 1 + 2j, range(1, 9, 2),
        [1, (2, {"a": {3}})], frozenset((1, 2)), collections.deque([1]), {(1, 2): [None]},
    ],
)  # fmt: skip
def test_plain_values_cross_as_they_are(value: Any) -> None:
    found = decode(encode(value, lambda _: -1), lambda _: None)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", [["z", 1], ["i", "x"], 5, {"a": 1}, ["l"], []])
def test_what_is_no_value_is_refused(value: Any) -> None:
    with pytest.raises(Lost):
        decode(value, lambda _: None)


def test_functions_are_called(program: Program) -> None:
    add = program.names(["add", "nothing"])["add"]
    assert add(1, 2) == 3
    assert add(1, b=4) == 5
    assert add([1], [2]) == [1, 2]


def test_an_object_that_equals_everything_equals_nothing(program: Program) -> None:
    found: Any = program.names(["always"])["always"](3)
    assert found != 3
    assert isinstance(found, Handle)
    with pytest.raises(TypeError):
        bool(found)


def test_objects_stay_there_and_can_be_used(program: Program) -> None:
    stack = program.names(["Stack"])["Stack"]()
    stack.push(4)
    assert len(stack.items) == 1
    assert stack.pop() == 4
    assert list(program.names(["count"])["count"](600)) == list(range(600))


def test_an_argument_that_is_changed_is_changed_here(program: Program) -> None:
    items = [3, 1, 2]
    program.names(["sort"])["sort"](items)
    assert items == [1, 2, 3]


def test_what_the_program_raises_is_raised_here_if_it_is_an_error(program: Program) -> None:
    fail = program.names(["fail"])["fail"]
    with pytest.raises(ValueError, match="no"):
        fail("v")
    with pytest.raises(TypeError, match="no plain value"):
        fail(print)


def test_the_end_of_the_program_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises((Lost, OSError)):
        Program(ours.fileno()).names(["add"])
