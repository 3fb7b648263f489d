"""Answers of a sync on the wire."""

from __future__ import annotations

import pytest

from sppo.errors import BadFrame
from sppo.weights.protocol import Reply


def test_a_reply_comes_back_as_it_was() -> None:
    reply = Reply(sync="s", member="generator-0", phase="applied", error="no room")
    assert Reply.unpack(reply.pack()) == reply


def test_what_is_no_reply_is_refused() -> None:
    with pytest.raises((BadFrame, TypeError)):
        Reply.unpack(b"\xc1")
