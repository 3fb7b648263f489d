"""The process that runs a user's scorer: in its main thread, one call at a time, or many if it is
async.

Run as a file by `sppo.scorer.process`, so that it starts in tens of milliseconds: it imports the
standard library, `sppo.scorer.calls` and the user's module. Both sides speak JSON, each message
behind its length in four bytes:

    to here    {"name": "...", "target": "module:name", "options": {}, "path": [...]}   once
               {"id": 1, "requests": [{"uid": "...", "question": "...", ...}]}
               {"cancel": 1}                                                            async only
               {"close": true}                                                          last
    from here  {"ready": true, "concurrent": false, "batch": 1, "closes": false}        once, or
               {"error": "...", "where": "..."}
               {"id": 1, "begun": true}                                                 async only
               {"alive": true}  every ALIVE_S while something is in hand, if the scorer keeps time
               {"id": 1, "answers": [{"reply": [...]}]}  one for each request, each perhaps an error
               {"id": 1, "error": "...", "final": false}                                of the call
               and with either {"counters": {"calls": 3}} of a scorer that counts

What the scorer prints goes where this process prints: to the log of the role. `final` says that
the error would come again for any completions. `where` is `import`, `options` or `setup`.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any

LENGTH = 4
ALIVE_S = 0.25
_PR_SET_PDEATHSIG = 1


def main(descriptor: int, parent: int) -> None:
    """Serve until the other side closes."""
    _die_with(parent)
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    hello = _receive(channel)
    if hello is None:
        return
    sys.path[:] = hello["path"]
    from sppo.scorer import calls

    try:
        loaded = calls.load(hello["name"], hello["target"], hello["options"])
    except calls.OptionError as error:
        _send(channel, {"error": str(error), "where": "options"})
        return
    except BaseException as error:  # noqa: BLE001 - whatever a user's module does when it is imported
        traceback.print_exc()
        found = sys.modules.get(hello["target"].partition(":")[0])
        told = calls.explain(error, getattr(found, "__file__", None) or "")
        _send(channel, {**told, "where": "import"})
        return
    if loaded.concurrent:
        import asyncio

        asyncio.run(_Concurrent(loaded).serve(channel))
    else:
        _serve(channel, loaded)


def _ready(loaded: Any) -> dict[str, Any]:
    return {
        "ready": True,
        "concurrent": loaded.concurrent,
        "batch": loaded.batch,
        "closes": loaded.close is not None,
    }


def _counted(loaded: Any) -> dict[str, Any]:
    return {"counters": dict(loaded.counters())} if loaded.counters else {}


def _failed(error: BaseException, file: str) -> dict[str, Any]:
    """What is said of a `setup` that failed: an error of ours says all itself."""
    from sppo.scorer import calls

    traceback.print_exc()
    if type(error).__name__ == "ConfigError":
        return {"error": str(error), "where": "options"}
    return {**calls.explain(error, file), "where": "setup"}


def _die_with(parent: int) -> None:
    """Be ended with the process that started this one, however that ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(channel: socket.socket, loaded: Any) -> None:
    from sppo.scorer import calls

    try:
        _awaited(loaded.setup() if loaded.setup else None)
    except BaseException as error:  # noqa: BLE001 - whatever a user's code does
        _send(channel, _failed(error, loaded.file))
        return
    _send(channel, _ready(loaded))
    me, said = os.getpid(), _Said()
    while (message := _receive(channel)) is not None and "id" in message:
        try:
            replies = loaded.call([calls.Request.of(each) for each in message["requests"]])
            # Of a function that does not look async, a decorated one, an answer is to be awaited.
            answers = [_normal(lambda r=r: _awaited(r), loaded.file, said) for r in replies]
            answer: dict[str, Any] = {"answers": answers}
        except BaseException as error:  # noqa: BLE001 - SystemExit too: this process goes on
            answer = calls.explain(error, loaded.file)
            said.once(answer["error"])
        if os.getpid() != me:  # a fork that user code let run on
            os._exit(0)
        _send(channel, {"id": message["id"], **answer, **_counted(loaded)})
    if loaded.close:
        _awaited(loaded.close())


def _normal(reply: Any, file: str, said: _Said) -> dict[str, Any]:
    """One answer, or the error in it."""
    from sppo.scorer import calls

    try:
        return {"reply": calls.answer(reply())}
    except BaseException as error:  # noqa: BLE001 - of a user's objects when they are made numbers of
        told = calls.explain(error, file)
        said.once(told["error"])
        return told


def _awaited(reply: Any) -> Any:
    if not inspect.isawaitable(reply):
        return reply
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
    """Serves an async scorer: its calls are awaited beside each other."""

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded
        self._tasks: dict[int, Any] = {}
        self._ticking: Any = None
        self._said = _Said()

    async def serve(self, channel: socket.socket) -> None:
        """Until the other side closes."""
        import asyncio

        reader, writer = await asyncio.open_connection(sock=channel)
        try:
            await _maybe(self._loaded.setup() if self._loaded.setup else None)
        except BaseException as error:  # noqa: BLE001 - whatever a user's code does
            writer.write(_framed(_failed(error, self._loaded.file)))
            await writer.drain()
            return
        writer.write(_framed(_ready(self._loaded)))
        if self._loaded.keeps_time:
            self._ticking = asyncio.create_task(self._tick(writer))
        while True:
            try:
                size = int.from_bytes(await reader.readexactly(LENGTH), "big")
                message = json.loads(await reader.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if "id" in message:
                self._tasks[message["id"]] = asyncio.create_task(self._answer(message, writer))
            elif "cancel" in message:
                task = self._tasks.get(message["cancel"])
                if task is not None:
                    task.cancel()
            else:
                await _maybe(self._loaded.close() if self._loaded.close else None)
                return

    async def _tick(self, writer: Any) -> None:
        """Say that calls in hand get on."""
        import asyncio

        while True:
            await asyncio.sleep(ALIVE_S)
            if self._tasks:
                writer.write(_framed({"alive": True}))

    async def _answer(self, message: dict[str, Any], writer: Any) -> None:
        from sppo.scorer import calls

        writer.write(_framed({"id": message["id"], "begun": True}))
        file = self._loaded.file
        try:
            requests = [calls.Request.of(each) for each in message["requests"]]
            replies = await self._loaded.call(requests)
            answer: dict[str, Any] = {
                "answers": [_normal(lambda r=r: r, file, self._said) for r in replies]
            }
        except BaseException as error:  # noqa: BLE001 - SystemExit too: this process goes on
            answer = calls.explain(error, file)
            self._said.once(answer["error"])
        del self._tasks[message["id"]]
        writer.write(_framed({"id": message["id"], **answer, **_counted(self._loaded)}))


async def _maybe(reply: Any) -> Any:
    return await reply if inspect.isawaitable(reply) else reply


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
