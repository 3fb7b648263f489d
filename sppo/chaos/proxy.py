"""A relay between a client and its server that misbehaves on request: for `sppo-cli chaos` and the
fault tests.

    proxy = Proxy(listen=Path("/tmp/x/generator-0.sock"), server=Path("/tmp/y/broker.sock"))
    proxy.start()
    proxy.mode = "silence"      # a partition: bytes go in and never come out
    proxy.mode = "pass"
    proxy.stop()

Bytes are never altered. Both ends are Unix sockets, so it listens on no network.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Literal

Mode = Literal["pass", "silence", "cut", "delay", "drop_reply", "half_close", "trickle"]

DELAY_S = 0.2
_CHUNK = 1 << 16


class Proxy:
    """Relays every connection; `mode` may change at any time and holds for connections that are
    open too.

    pass        as it comes
    silence     nothing is relayed, nothing is closed: what a network partition looks like
    cut         open connections are closed, new ones at once
    delay       each piece waits 0.2 s
    drop_reply  the next piece from the server is swallowed and the connection closed; then `pass`
    half_close  the next connection that sends is closed towards the client before the server
                answers; then `pass`
    trickle     one byte at a time
    """

    def __init__(self, *, listen: Path, server: Path) -> None:
        self._listen, self._server = listen, server
        self.mode: Mode = "pass"
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"proxy-{listen.stem}")
        self._writers: set[asyncio.StreamWriter] = set()

    def start(self) -> None:
        """Listen; returns once connections are accepted."""
        self._thread.start()
        if not self._ready.wait(5):
            raise OSError(
                f"cannot listen on {self._listen}; is the path longer than 107 characters? Set "
                f"TMPDIR"
            )

    def stop(self) -> None:
        """Close everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._listen.unlink(missing_ok=True)

    def cut(self) -> None:
        """Close every open connection now."""
        self._loop.call_soon_threadsafe(self._close_all)

    def _close_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def serve() -> None:
            self._listen.unlink(missing_ok=True)
            await asyncio.start_unix_server(self._relay, path=str(self._listen))
            self._listen.chmod(0o600)
            self._ready.set()

        self._loop.create_task(serve())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._close_all()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _relay(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        self._writers.add(to_client)
        to_server: asyncio.StreamWriter | None = None
        try:
            if self.mode == "cut":
                return
            from_server, to_server = await asyncio.open_unix_connection(str(self._server))
            self._writers.add(to_server)
            pumps = [
                asyncio.create_task(self._pump(from_client, to_server, reply=False)),
                asyncio.create_task(self._pump(from_server, to_client, reply=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
        except OSError:  # the server is away: the client sees a closed connection
            return
        finally:
            for writer in (to_client, to_server):
                if writer is not None:
                    self._writers.discard(writer)
                    writer.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, reply: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(_CHUNK):
                while self.mode == "silence":
                    await asyncio.sleep(0.05)
                if self.mode == "cut":
                    return
                if reply and self.mode == "drop_reply":
                    self.mode = "pass"
                    return
                if self.mode == "delay":
                    await asyncio.sleep(DELAY_S)
                if self.mode == "trickle":
                    for i in range(len(data)):
                        sink.write(data[i : i + 1])
                        await sink.drain()
                        await asyncio.sleep(0)
                else:
                    sink.write(data)
                    await sink.drain()
                if not reply and self.mode == "half_close":
                    self.mode = "pass"
                    return  # the server has the command; its answer finds nobody
