"""Who may do what on the embedded server: one user per role, each with a password of its own.

The lines also serve as a template for a server of one's own (docs/security.md). What they are for:
a scorer, which runs a user's code, sees no prompt queue; a generator cannot take the run over,
acknowledge groups or ask roles to stop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

# Everything that sppo uses, and nothing that reads or changes the server itself. INFO tells one
# life from another.
_COMMANDS = (
    "+@all -@dangerous -@admin -@pubsub -@blocking +xread +xreadgroup -function "
    "-script +script|load +info"
)

_NO_LISTING = "-scan -randomkey -dbsize -select"

_KEYS = {
    "learner": "~sppo:*",
    "generator": " ".join(
        [f"%R~sppo:*:{key}" for key in ("epoch", "control", "stop:*", "hb:*", "run")]
        + [
            f"~sppo:*:{key}"
            for key in (
                "tickets", "minv", "lease", "todo", "todo:eval", "attempts", "failures", "state",
                "dead", "bytes", "q", "b:*", "members", "hb:generator-*", "replies",
            )
        ]
    ),
    "scorer": (
        "%R~sppo:*:stop:* %R~sppo:*:run %R~sppo:*:hb:learner-* "
        "~sppo:*:members ~sppo:*:hb:scorer-*"
    ),
    "operator": "~sppo:*",
}  # fmt: skip

_EXTRA = {
    "learner": _NO_LISTING,
    "generator": f"{_NO_LISTING} -xack -xdel -xtrim -xgroup -xreadgroup",
    "scorer": f"{_NO_LISTING} -@scripting",
    "operator": "",
}

ROLES = tuple(_KEYS)


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def lines(passwords: Mapping[str, str], shared: str = "") -> list[str]:
    """Configuration lines of a Redis 7 or Valkey server; passwords go in as their digests.

    With `shared`, the default user has that password and may do what every role may.
    """
    digests = {role: _digest(passwords[role]) for role in ROLES}
    default = f"on #{_digest(shared)} {_KEYS['operator']} {_COMMANDS}" if shared else "off"
    return [
        f"user default {default}",
        *(
            f"user {role} on #{digests[role]} {_KEYS[role]} {_COMMANDS} {_EXTRA[role]}"
            for role in ROLES
        ),
    ]
