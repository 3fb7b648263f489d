"""The first weight sync of machines that have no names: DNS is asked nothing, and costs nothing.

`python -m tests.integration.test_lookups [PORT]` is the learner's end, or an engine's.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.conftest import REPOSITORY
from tests.integration.test_ranks_apart import ip

MODULE = "tests.integration.test_lookups"
HERE, DNS = "10.97.8.1", "10.97.8.3"


@contextmanager
def nameless() -> Iterator[list[str]]:
    """What begins a command on a machine whose DNS hears everything and says nothing. Where this
    user may have no namespaces: this machine as it is.
    """
    name = f"sppo-dns-{os.getpid()}"
    resolver = Path("/etc/netns") / name / "resolv.conf"
    try:
        if not ip("netns", "add", name):
            yield []
            return
        for words in (["link", "set", "lo", "up"], *(
            ["addr", "add", f"{address}/32", "dev", "lo"] for address in (HERE, DNS)
        )):  # fmt: skip
            assert ip("-n", name, *words)
        resolver.parent.mkdir(parents=True)
        resolver.write_text(f"nameserver {DNS}\n")
        yield ["ip", "netns", "exec", name]
    finally:
        ip("netns", "del", name)
        resolver.unlink(missing_ok=True)
        if resolver.parent.is_dir():
            resolver.parent.rmdir()


def test_the_first_sync_asks_for_no_name() -> None:
    with nameless() as way:
        found = subprocess.run(
            [*way, sys.executable, "-m", MODULE], cwd=REPOSITORY, capture_output=True, text=True,
            timeout=100,
        )  # fmt: skip
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["questions"] == 0  # four, and 10 s at either end, if torch looks up its peers
    assert max(told["opened_s"], told["joined_s"]) < 5


def learner() -> None:
    """Send a weight to an engine in another process; print what it took and what DNS heard."""
    import torch

    from sppo.weights.gloo import GlooSender

    questions = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    host = HERE
    try:
        questions.bind((DNS, 53))
    except OSError:
        host = "127.0.0.1"
    questions.setblocking(False)
    sender, began = GlooSender(host), time.monotonic()
    update = sender.stage([("w", torch.ones(10))])
    join = sender.open(2, 60)
    opened = time.monotonic() - began
    other = subprocess.Popen(
        [sys.executable, "-m", MODULE, json.dumps([join, update])], stdout=subprocess.PIPE
    )
    sender.transfer(meet=True)()
    said, _ = other.communicate()
    heard = 0
    while True:
        try:
            questions.recv(2000)
        except OSError:
            break
        heard += 1
    print(json.dumps({"opened_s": opened, "joined_s": float(said), "questions": heard}))


def engine(given: str) -> None:
    """Receive it; print how long the meeting took."""
    from sppo.weights.gloo import GlooReceiver

    join, update = json.loads(given)
    receiver, began = GlooReceiver(), time.monotonic()
    receiver.join(**join, rank=1, own_host=join["master_address"])
    print(time.monotonic() - began)
    receiver.receive(**update)


if __name__ == "__main__":
    engine(sys.argv[1]) if sys.argv[1:] else learner()
