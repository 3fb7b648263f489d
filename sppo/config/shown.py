"""A configuration where others see it: on a page, in a tracker.

config.toml holds no secret that sppo knows of. Tables of the user's own, and addresses, may.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SECRET = re.compile(r"password|secret|token$|api_?key|credential", re.IGNORECASE)
HIDDEN = "(not shown)"
_LOGIN = re.compile(r"://[^/\s@]*@")


def shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same tables without passwords in addresses, and without values that are named like a
    secret.
    """
    return {
        key: HIDDEN if value and SECRET.search(key) else _shown(value)
        for key, value in values.items()
    }


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, dict):
        return shown(value)
    return _LOGIN.sub("://", value) if isinstance(value, str) else value
