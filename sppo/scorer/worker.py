"""The process that runs a user's scorer function: in its main thread, one group at a time, or many
if it is async.

Run as a file by `sppo.scorer.process`, so that it starts in tens of milliseconds: it imports the
standard library and the user's module. Both sides speak JSON, each message behind its length in
four bytes:

    to here    {"name": "module:function", "path": [...]}                         once
               {"id": 1, "question": "...", "completions": [...], "data": {...}}
               {"cancel": 1}                                                      async only
    from here  {"ready": true, "concurrent": false} or {"error": "..."}           once
               {"id": 1, "begun": true}                                           async only
               {"id": 1, "reply": [...]} or {"id": 1, "error": "...", "final": false}

What the function prints goes where this process prints: to the log of the role. `final` says that
the error would come again for any completions.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LENGTH = 4
LONGEST_WORDS = 500
_PR_SET_PDEATHSIG = 1
_SAME_FOR_ANY_COMPLETION = (NameError, ImportError, NotImplementedError, SyntaxError)


def plain(reply: Any) -> list[Any]:
    """What a function returned (lists, tuples, arrays, tensors) as floats, or as rows of floats.

    Raises TypeError or ValueError naming what is not a number; a text is none, not even "1.0".
    """
    rows: list[Any] = []
    for i, item in enumerate(_items(reply)):
        item = item.tolist() if hasattr(item, "tolist") else item
        if isinstance(item, list | tuple):
            rows.append([_number(x, f"[{i}][{j}]") for j, x in enumerate(item)])
        else:
            rows.append(_number(item, f"[{i}]"))
    return rows


def _items(reply: Any) -> Iterable[Any]:
    reply = reply.tolist() if hasattr(reply, "tolist") else reply
    if isinstance(reply, str | bytes | Mapping) or not isinstance(reply, Iterable):
        raise TypeError(
            f"a list with a number for each completion is expected, not {type(reply).__name__}"
        )
    return reply


def _number(value: Any, where: str) -> float:
    if isinstance(value, str | bytes) or not hasattr(type(value), "__float__"):
        value = value.tolist() if hasattr(value, "tolist") else value  # an array of no dimension
        if not isinstance(value, int | float):
            raise TypeError(f"{where} is {value!r:.80}, which is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{where} is an integer beyond what a float holds") from None


def explain(error: BaseException, file: str) -> dict[str, Any]:
    """The error in one line, with the line of the user's `file` where it came up."""
    words = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_WORDS]
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if f.filename == file] or [
        f for f in frames if f.filename != __file__
    ]
    if inside:
        words += f" ({os.path.basename(inside[-1].filename)}, line {inside[-1].lineno})"
    final = isinstance(error, _SAME_FOR_ANY_COMPLETION) and not isinstance(error, UnboundLocalError)
    return {"error": words, "final": final}


def main(descriptor: int, parent: int) -> None:
    """Serve until the other side closes."""
    _die_with(parent)
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    setup = _receive(channel)
    if setup is None:
        return
    sys.path[:] = setup["path"]
    module, _, attribute = setup["name"].partition(":")
    file = ""
    try:
        found = importlib.import_module(module)
        file = getattr(found, "__file__", None) or ""
        function = found
        for name in attribute.split("."):
            function = getattr(function, name)
        if not callable(function):
            raise TypeError(f"{attribute} is no function")
    except BaseException as error:  # noqa: BLE001 - whatever a user's module does when it is imported
        traceback.print_exc()
        _send(channel, explain(error, file))
        return
    call: Callable[..., Any] = function
    concurrent = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
        type(call).__call__
    )
    _send(channel, {"ready": True, "concurrent": concurrent})
    if concurrent:
        import asyncio

        asyncio.run(_Concurrent(call, file).serve(channel))
    else:
        _serve(channel, call, file)


def _die_with(parent: int) -> None:
    """Be ended with the process that started this one, however that ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(channel: socket.socket, function: Callable[..., Any], file: str) -> None:
    me, said = os.getpid(), _Said()
    while (message := _receive(channel)) is not None:
        try:
            reply = function(message["question"], message["completions"], message["data"])
            if inspect.isawaitable(
                reply
            ):  # of a function that does not look async: a decorated one
                reply = _await(reply)
            answer: dict[str, Any] = {"reply": plain(reply)}
        except BaseException as error:  # noqa: BLE001 - SystemExit too: this process goes on
            answer = explain(error, file)
            said.once(answer["error"])
        if os.getpid() != me:  # a fork that user code let run on
            os._exit(0)
        _send(channel, {"id": message["id"], **answer})


def _await(reply: Any) -> Any:
    import asyncio

    async def wait() -> Any:
        return await reply

    return asyncio.run(wait())


class _Said:
    """Prints a traceback unless the error before it was the same."""

    def __init__(self) -> None:
        self._last = ""

    def once(self, words: str) -> None:
        if words != self._last:
            self._last = words
            traceback.print_exc()


class _Concurrent:
    """Serves an async function: groups are awaited beside each other."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._function = function
        self._file = file
        self._tasks: dict[int, Any] = {}
        self._said = _Said()

    async def serve(self, channel: socket.socket) -> None:
        """Until the other side closes."""
        import asyncio

        reader, writer = await asyncio.open_connection(sock=channel)
        while True:
            try:
                size = int.from_bytes(await reader.readexactly(LENGTH), "big")
                message = json.loads(await reader.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if "cancel" in message:
                task = self._tasks.get(message["cancel"])
                if task is not None:
                    task.cancel()
            else:
                self._tasks[message["id"]] = asyncio.create_task(self._answer(message, writer))

    async def _answer(self, message: dict[str, Any], writer: Any) -> None:
        writer.write(_framed({"id": message["id"], "begun": True}))
        try:
            reply = await self._function(
                message["question"], message["completions"], message["data"]
            )
            answer: dict[str, Any] = {"reply": plain(reply)}
        except BaseException as error:  # noqa: BLE001 - SystemExit too: this process goes on
            answer = explain(error, self._file)
            self._said.once(answer["error"])
        del self._tasks[message["id"]]
        writer.write(_framed({"id": message["id"], **answer}))


def _framed(message: Mapping[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return len(body).to_bytes(LENGTH, "big") + body


def _send(channel: socket.socket, message: Mapping[str, Any]) -> None:
    channel.sendall(_framed(message))


def _receive(channel: socket.socket) -> Any:
    """The next message; None once the other side has closed."""
    head = _exactly(channel, LENGTH)
    body = _exactly(channel, int.from_bytes(head, "big")) if head else None
    return json.loads(body) if body else None


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
