"""Bytes between a client and an echo, in each of the proxy's moods."""

from __future__ import annotations

import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sppo.chaos.proxy import DELAY_S, Proxy


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            self.wfile.write(line)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory() as folder:
        server = socketserver.ThreadingUnixStreamServer(f"{folder}/s", Echo)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = Proxy(listen=Path(folder) / "p", server=Path(folder) / "s")
        made.start()
        yield made
        made.stop()
        server.shutdown()
        server.server_close()


def client(proxy: Proxy) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(5)
    made.connect(str(proxy._listen))
    return made


def ask(connection: socket.socket) -> bytes:
    connection.sendall(b"hello\n")
    return connection.recv(100)


def test_it_passes_slows_and_trickles_but_alters_nothing(proxy: Proxy) -> None:
    with client(proxy) as one:
        assert ask(one) == b"hello\n"
        proxy.mode = "delay"
        began = time.monotonic()
        assert ask(one) == b"hello\n"
        assert time.monotonic() - began >= DELAY_S
        proxy.mode = "trickle"
        one.sendall(b"hello\n")
        assert b"".join(one.recv(1) for _ in range(6)) == b"hello\n"


def test_silence_holds_everything_back_until_it_is_over(proxy: Proxy) -> None:
    with client(proxy) as one:
        assert ask(one)
        proxy.mode = "silence"
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ask(one)
        proxy.mode = "pass"
        one.settimeout(5)
        assert one.recv(100) == b"hello\n"


def test_a_cut_closes_what_is_open_and_what_comes(proxy: Proxy) -> None:
    with client(proxy) as one:
        assert ask(one)
        proxy.mode = "cut"
        proxy.cut()
        assert closed(one)
        with client(proxy) as other:
            assert closed(other)


@pytest.mark.parametrize("mode", ["drop_reply", "half_close"])
def test_one_answer_is_lost_and_the_next_connection_works(proxy: Proxy, mode: str) -> None:
    with client(proxy) as one:
        proxy.mode = mode  # type: ignore[assignment]
        one.sendall(b"hello\n")
        assert closed(one)
    assert proxy.mode == "pass"
    with client(proxy) as other:
        assert ask(other) == b"hello\n"


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True
