"""The users of the embedded server. What they may do in fact: tests/integration/test_server.py."""

from __future__ import annotations

import hashlib

from sppo.transport import acl

PASSWORDS = {role: f"password of {role}" for role in acl.ROLES}


def users(shared: str = "") -> dict[str, list[str]]:
    return {line.split()[1]: line.split()[2:] for line in acl.lines(PASSWORDS, shared)}


def test_passwords_are_written_as_digests() -> None:
    text = "\n".join(acl.lines(PASSWORDS, "shared secret"))
    assert "password of" not in text
    assert "shared secret" not in text
    assert f"#{hashlib.sha256(b'password of scorer').hexdigest()}" in users()["scorer"]


def test_nobody_comes_in_without_a_name_unless_a_password_is_shared() -> None:
    assert users()["default"] == ["off"]
    assert users("secret")["default"][0] == "on"
    assert "~sppo:*" in users("secret")["default"]


def test_nobody_may_change_the_server_and_each_role_has_its_limits() -> None:
    found = users()
    assert found.keys() == {"default", *acl.ROLES}
    for role in acl.ROLES:
        assert {"-@dangerous", "-@admin"} <= set(found[role])
    assert "-@scripting" in found["scorer"]
    assert not any("tickets" in word for word in found["scorer"])
    assert "%R~sppo:*:epoch" in found["generator"]  # it may read it only
    assert "~sppo:*:epoch" not in found["generator"]
    assert {"-xack", "-xdel", "-xreadgroup"} <= set(found["generator"])
