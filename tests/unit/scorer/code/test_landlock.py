"""The rules for files; what they do is in tests/integration/test_code.py."""

from __future__ import annotations

import os

from sppo.scorer.code import landlock


def test_nothing_that_may_be_read_belongs_to_a_user() -> None:
    assert landlock.version() >= 0
    for path in landlock.READABLE:
        assert path.startswith(("/lib", "/usr/", "/etc/ld.so.cache", "/etc/localtime", "/dev/"))
        assert not os.path.exists(path) or os.stat(path).st_uid == 0
