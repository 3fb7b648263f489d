"""The page of all settings, docs/configuration.md."""

from __future__ import annotations

import json
from itertools import groupby

from pydantic import SecretStr

from sppo.config.fields import Change
from sppo.config.names import default, fields

HEAD = ["| setting | default | may change | meaning |", "|---|---|---|---|"]
MAY_CHANGE = {Change.FREE: "resume, role", Change.ON_RESUME: "resume", Change.PER_ROLE: "role"}


def reference() -> str:
    """Every setting with its default and meaning, as the Markdown of docs/configuration.md."""
    lines = []
    for section, keys in groupby(fields(), lambda key: key.rpartition(".")[0]):
        lines += ["", f"## {section}", ""] if section else []
        lines += [*HEAD, *map(_row, keys)]
    return "\n".join([*lines, ""])


def _row(key: str) -> str:
    field, value = fields()[key], default(key)
    shown = "secret" if isinstance(value, SecretStr) else json.dumps(value)
    changes = [MAY_CHANGE[mark] for mark in field.metadata if isinstance(mark, Change)]
    meaning = " ".join((field.description or "").split())
    return f"| `{key}` | `{shown}` | {''.join(changes)} | {meaning} |"
