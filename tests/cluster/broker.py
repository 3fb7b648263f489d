"""A Redis of one's own on one machine of a network: TLS, a password, a log that is flushed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import packages
from tests.cluster.machines import Machine

PASSWORD = "geheim"
PORT = 6379


def certificates(folder: Path, address: str) -> None:
    """An authority (ca.pem) and what it says of this address (cert.pem, key.pem)."""
    (folder / "names").write_text(f"subjectAltName=IP:{address}")
    request = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout"]
    for words in (
        [*request, "ca.key", "-x509", "-days", "1", "-subj", "/CN=authority", "-out", "ca.pem"],
        [*request, "key.pem", "-subj", "/CN=broker", "-out", "request.pem"],
        ["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
         "-CAcreateserial", "-days", "1", "-extfile", "names", "-out", "cert.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@contextmanager
def serving(machine: Machine, folder: Path) -> Iterator[dict[str, object]]:
    """Settings of a server on this machine that every other one reaches."""
    packages.fetch("redis-server")
    certificates(folder, machine.address)
    words = {
        "port": 0, "tls-port": PORT, "bind": machine.address, "tls-auth-clients": "no",
        "tls-cert-file": "cert.pem", "tls-key-file": "key.pem", "tls-ca-cert-file": "ca.pem",
        "requirepass": PASSWORD, "appendonly": "yes", "appendfsync": "always",
        "maxmemory-policy": "noeviction", "save": "",
    }  # fmt: skip
    given = [word for key, value in words.items() for word in (f"--{key}", str(value))]
    with (folder / "redis.log").open("w") as log:
        server = subprocess.Popen(
            machine.command(packages.program("redis-server"), *given), cwd=folder, stdout=log,
            env=os.environ | packages.environment(),
        )  # fmt: skip
    try:
        yield {
            "broker.url": f"rediss://{machine.address}:{PORT}",
            "broker.tls_ca": str(folder / "ca.pem"),
        }
    finally:
        server.kill()
        server.wait()
