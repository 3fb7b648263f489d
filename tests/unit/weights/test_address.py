"""Of this machine, as others see it."""

from __future__ import annotations

import pytest

from sppo.weights import address


def test_what_is_on_this_machine_is_reached_from_its_own_address() -> None:
    assert address.towards("127.0.0.1", 6379) == "127.0.0.1"
    with pytest.raises(OSError, match=r"."):
        address.towards("no such host", 1)
