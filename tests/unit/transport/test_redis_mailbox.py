"""Channels on a real server keep what their readers may still need."""

from __future__ import annotations

import pytest

from sppo.transport import redis_mailbox
from sppo.transport.client import Connection
from sppo.transport.redis_mailbox import RedisMailbox


def test_a_channel_keeps_its_newest_messages(
    server: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(redis_mailbox.KEPT, "control", 3)
    mailbox = RedisMailbox(server)
    sent = [b"%d" % i for i in range(210)]
    for message in sent:
        mailbox.send("control", message)
    kept = [message for _, message in mailbox.receive("control", "0", 0)]
    assert 3 <= len(kept) < 210  # the server drops them by the hundred
    assert kept == sent[-len(kept) :]


def test_an_empty_channel_is_read_from_its_beginning(server: Connection) -> None:
    mailbox = RedisMailbox(server)
    position = mailbox.tail("metrics")
    assert mailbox.receive("metrics", position, 0) == []
    mailbox.send("metrics", b"first")
    ((newest, message),) = mailbox.receive("metrics", position, 1)
    assert message == b"first"
    assert mailbox.tail("metrics") == newest
