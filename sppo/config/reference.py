"""The page of all settings, docs/configuration.md."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, SecretStr

from sppo.config.run import RunConfig


def reference() -> str:
    """Every setting with its default and meaning, as the Markdown of docs/configuration.md."""
    lines = []
    for section, field in RunConfig.model_fields.items():
        model = field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            lines.append(_row(section, field.get_default(), field.description))
            continue
        lines += ["", f"## {section}", "", "| setting | default | meaning |", "|---|---|---|"]
        lines += [
            _row(
                f"{section}.{name}",
                f.get_default(call_default_factory=True, validated_data={}),
                f.description,
            )
            for name, f in model.model_fields.items()
        ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *lines, ""])


def _row(name: str, default: Any, meaning: str | None) -> str:
    shown = "secret" if isinstance(default, SecretStr) else json.dumps(default)
    return f"| `{name}` | `{shown}` | {' '.join((meaning or '').split())} |"
