"""Chat messages from the user's data: a column of a row, or a file of examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sppo import strict_json
from sppo.config import utf8
from sppo.errors import ConfigError
from sppo.tasks.rows import Unusable, kind

ROLES = ("system", "user", "assistant")
Message = tuple[str, str]
"""(role, content)"""


def read(value: Any) -> list[Message]:
    """A list of chat messages, checked. Raises Unusable naming the message."""
    if not isinstance(value, list):
        raise Unusable(f"is {kind(value)}, not a list of chat messages")
    found = []
    for number, message in enumerate(value, start=1):
        if wrong := _wrong(message):
            raise Unusable(f"is a list whose item {number} {wrong}")
        found.append((message["role"], message["content"]))
    return found


def few_shot(name: str) -> tuple[Message, ...]:
    """The messages of the file that `task.few_shot` names. Raises ConfigError."""
    setting = f"task.few_shot = {name!r}"
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"{setting}: no such file")
    try:
        found = read(strict_json.loads(utf8(path.read_bytes(), str(path))))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{setting}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (ValueError, OSError, ConfigError) as error:
        raise ConfigError(f"{setting}: {error}") from error
    roles = [role for role, _ in found]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise ConfigError(
            f"{setting}: holds messages of {', '.join(roles) or 'nobody'}; write user and "
            "assistant in turn, ending with assistant (a system message is task.system)"
        )
    return tuple(found)


def _wrong(message: Any) -> str:
    if not isinstance(message, dict):
        return f"is {kind(message)}, not an object with role and content"
    given: Sequence[str] = [key for key, value in message.items() if value is not None]
    if set(given) != {"role", "content"}:
        return f"has the fields {', '.join(given) or 'none'}; exactly role and content are read"
    if message["role"] not in ROLES:
        return f"has the role {message['role']!r}; there are {', '.join(ROLES)}"
    if not isinstance(message["content"], str):
        return f"has a content that is {kind(message['content'])}, not text"
    return ""
