"""Calls into a program that runs in a process of its own, by values that it cannot forge.

What crosses are plain values, rebuilt on the other side from JSON: an object with an `__eq__` of
its own stays where it is, and the other side has a handle that equals nothing. Standard library
only: it is loaded in the sandbox.
"""

from __future__ import annotations

import builtins
import collections
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

MOST = 32 << 20
"""Bytes of the largest message."""
_LENGTH = 4
_SEQUENCES: dict[str, Callable[..., Any]] = {
    "l": list,
    "t": tuple,
    "s": set,
    "f": frozenset,
    "q": collections.deque,
}
_NAMES: dict[Any, str] = {kind: name for name, kind in _SEQUENCES.items()}
_TABLES = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)


class Lost(Exception):  # noqa: N818 - the tests end by it
    """The program ended, or said what cannot be read."""


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """A value as JSON; what is not plain as the number that `keep` gives it."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return ["i", hex(value)]
    if kind is float:
        return ["x", value.hex()]
    if kind is complex:
        return ["c", value.real.hex(), value.imag.hex()]
    if kind in (bytes, bytearray):
        return ["b", value.hex()]
    if kind is range:
        return ["r", *(hex(x) for x in (value.start, value.stop, value.step))]
    if kind in _NAMES:
        return [_NAMES[kind], [encode(each, keep) for each in value]]
    if kind in _TABLES:
        return ["d", [[encode(k, keep), encode(v, keep)] for k, v in value.items()]]
    return ["h", keep(value)]


def decode(value: Any, handle: Callable[[int], Any]) -> Any:
    """The inverse. Raises Lost for what is no message."""
    if value is None or isinstance(value, bool | str):
        return value
    try:
        kind, *rest = value
        if kind == "i":
            return int(rest[0], 16)
        if kind == "x":
            return float.fromhex(rest[0])
        if kind == "c":
            return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
        if kind == "b":
            return bytes.fromhex(rest[0])
        if kind == "r":
            return range(*(int(x, 16) for x in rest))
        if kind == "d":
            return {decode(k, handle): decode(v, handle) for k, v in rest[0]}
        if kind == "h":
            return handle(int(rest[0]))
        return _SEQUENCES[kind](decode(each, handle) for each in rest[0])
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise Lost(f"no value: {error}") from error


def send(channel: int, message: Any) -> None:
    """One message behind its length. Raises OSError, Lost."""
    body = json.dumps(message).encode()
    if len(body) > MOST:
        raise Lost(f"a message of {len(body)} bytes")
    rest = memoryview(len(body).to_bytes(_LENGTH, "big") + body)
    while rest:
        rest = rest[os.write(channel, rest) :]


def receive(channel: int) -> Any:
    """The next message. Raises Lost."""
    size = int.from_bytes(_exactly(channel, _LENGTH), "big")
    if size > MOST:
        raise Lost(f"a message of {size} bytes")
    try:
        return json.loads(_exactly(channel, size))
    except (ValueError, RecursionError) as error:
        raise Lost("no message") from error


def _exactly(channel: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(channel, min(size - len(parts), 1 << 16))
        if not part:
            raise Lost("the program ended")
        parts += part
    return bytes(parts)


# In the program's process ----------------------------------------------------------


def serve(code: str, channel: int) -> None:
    """Run a program as a module, then answer what is asked about it."""
    module = sys.modules["program"] = types.ModuleType("program")
    exec(compile(code, "program.py", "exec"), module.__dict__)
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    while True:
        try:
            message = receive(channel)
        except Lost:
            return
        try:
            reply = _answer(module, message, kept, keep)
        except Exception as error:  # noqa: BLE001 - whatever the program raises is an answer
            known = next(
                (c.__name__ for c in type(error).__mro__ if getattr(builtins, c.__name__, 0) is c),
                "Exception",
            )
            reply = {"error": known, "words": str(error)[:200]}
        send(channel, reply)


def _answer(
    module: types.ModuleType, message: Any, kept: list[Any], keep: Callable[[Any], int]
) -> dict[str, Any]:
    if "names" in message:
        found = {n: vars(module)[n] for n in message["names"] if n in vars(module)}
        return {"value": {name: encode(value, keep) for name, value in found.items()}}
    arguments = [decode(each, kept.__getitem__) for each in message["arguments"]]
    named = {k: decode(v, kept.__getitem__) for k, v in message["named"].items()}
    target = kept[message["handle"]]
    value = _OPERATIONS[message["do"]](target, *arguments, **named)
    return {
        "value": encode(value, keep),
        "arguments": [encode(each, keep) for each in arguments],
    }


def _next(iterator: Iterator[Any]) -> list[Any]:
    """The next items, at most as many as make a message."""
    items: list[Any] = []
    for item in iterator:
        items.append(item)
        if len(items) == 256:
            break
    return items


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda target, *arguments, **named: target(*arguments, **named),
    "attribute": getattr,
    "iterate": iter,
    "next": _next,
    "length": len,
    "item": lambda target, key: target[key],
}


# In the tests' process --------------------------------------------------------------


class Program:
    """The other side, as the tests see it."""

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def names(self, names: list[str]) -> dict[str, Any]:
        """What the program defines of these: values, and handles for functions and classes."""
        send(self._channel, {"names": names})
        return {name: self._decoded(value) for name, value in self._reply()["value"].items()}

    def ask(self, handle: int, do: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Do something with a kept value. Lists and tables among the arguments are then as the
        program left them. Raises what the program raised, if it is built in.
        """
        message = {
            "handle": handle,
            "do": do,
            "arguments": [encode(each, _number) for each in arguments],
            "named": {key: encode(value, _number) for key, value in named.items()},
        }
        send(self._channel, message)
        reply = self._reply()
        for given, left in zip(arguments, reply.get("arguments", ()), strict=False):
            _refill(given, self._decoded(left))
        return self._decoded(reply["value"])

    def _reply(self) -> Any:
        reply = receive(self._channel)
        if not isinstance(reply, dict) or "value" not in reply:
            kind = getattr(builtins, str(reply.get("error")), None) if reply else None
            known = isinstance(kind, type) and issubclass(kind, Exception)
            raise (kind if known and kind is not None else Exception)(str(reply)[:200])
        return reply

    def _decoded(self, value: Any) -> Any:
        return decode(value, lambda number: Handle(self, number))


class Handle:
    """Something of the program's that is no plain value. It equals nothing but itself."""

    def __init__(self, program: Program, number: int) -> None:
        self._program = program
        self._number = number

    def _ask(self, do: str, /, *arguments: Any, **named: Any) -> Any:
        return self._program.ask(self._number, do, arguments, named)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._ask("call", *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("attribute", name)

    def __iter__(self) -> Iterator[Any]:
        iterator = self._ask("iterate")
        while items := iterator._ask("next"):
            yield from items

    def __len__(self) -> int:
        return int(self._ask("length"))

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __bool__(self) -> bool:
        raise TypeError("the program returned an object that is no plain value")


def _number(value: Any) -> int:
    if not isinstance(value, Handle):
        raise TypeError(f"a test passes {type(value).__name__}, which is no plain value")
    return value._number


def _refill(given: Any, left: Any) -> None:
    """An argument that the program changed, changed here."""
    if type(given) is list and type(left) is list:
        given[:] = left
    elif type(given) in (dict, set) and type(given) is type(left):
        given.clear()
        given.update(left)
