from __future__ import annotations

from sppo.config import shown


def test_neither_passwords_in_addresses_nor_what_is_named_like_a_secret() -> None:
    found = shown(
        {
            "name": "x",
            "broker": {"url": "rediss://me:word@host:1/0"},
            "scorer": {
                "options": {"api_key": "word", "credentials": {"user": "word"}, "token": ""},
                "judge": {"headers": [{"secret": "word"}, "https://word@host/v1"]},
            },
            "sampling": {"max_tokens": 16},
        }
    )
    hidden = "(not shown)"
    assert found == {
        "name": "x",
        "broker": {"url": "rediss://host:1/0"},
        "scorer": {
            "options": {"api_key": hidden, "credentials": hidden, "token": ""},
            "judge": {"headers": [{"secret": hidden}, "https://host/v1"]},
        },
        "sampling": {"max_tokens": 16},
    }
