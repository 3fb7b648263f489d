"""The embedded server: what it refuses to serve, and where it puts its socket. How it lives and
dies: tests/integration/test_server.py.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest
from pydantic import SecretStr

from sppo.config import BrokerConfig
from sppo.errors import BrokerError, ConfigError
from sppo.transport import server
from sppo.transport.server import EmbeddedServer, private_folder, serve, unix_url


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "rediss://127.0.0.1:1"}, "plain Redis on loopback"),
        ({"url": "unix:///run/redis.sock"}, "plain Redis on loopback"),
        ({"url": "redis://127.0.0.1:1"}, "set SPPO_BROKER__PASSWORD, and no username"),
        ({"url": "redis://127.0.0.1:1", "username": "me"}, "and no username"),
    ],
)
def test_an_address_or_a_password_that_cannot_be_is_refused(
    settings: dict[str, str], words: str, tmp_path: Path
) -> None:
    password = SecretStr("x") if "username" in settings or "rediss" in settings["url"] else None
    given = settings | ({"password": password} if password else {})
    with pytest.raises(ConfigError, match=words):
        serve(BrokerConfig(**given), tmp_path, print)  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = BrokerConfig(url=f"redis://127.0.0.1:{port}", password=SecretStr("x"))
        with pytest.raises(ConfigError, match="choose another port"):
            serve(config, tmp_path, print)


def test_one_data_folder_has_one_folder_for_its_socket(temporary: Path, tmp_path: Path) -> None:
    found = private_folder(tmp_path / "a")
    assert found.parent == temporary
    assert found.stat().st_mode & 0o777 == 0o700
    assert private_folder(tmp_path / "a") == found  # of a life that was killed
    assert private_folder(tmp_path / "b") != found


def test_a_folder_that_is_open_to_others_is_refused(temporary: Path, tmp_path: Path) -> None:
    private_folder(tmp_path / "a").chmod(0o755)
    with pytest.raises(ConfigError, match="open to others"):
        private_folder(tmp_path / "a")


def test_a_full_disk_is_named_before_the_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MIN_FREE_BYTES", 1 << 60)
    embedded = EmbeddedServer(tmp_path, max_bytes=1 << 20)
    with pytest.raises(BrokerError, match="free some disk space"):
        embedded.start(BrokerConfig())
    embedded.stop()


def test_an_address_holds_whatever_characters_a_path_has() -> None:
    assert unix_url(Path("/my runs/ß#?.sock")) == "unix:///my%20runs/%C3%9F%23%3F.sock"
