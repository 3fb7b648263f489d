"""Settings from a TOML file, a preset or `--set`, and how the sources are laid over each other."""

from __future__ import annotations

import importlib.resources
import tomllib
from pathlib import Path
from typing import Any

from sppo.config import environment as variables
from sppo.config.names import ENVIRONMENT, SECRETS, variable
from sppo.errors import ConfigError


def presets() -> list[str]:
    """Names of the configurations that ship in the package."""
    folder = importlib.resources.files("sppo.presets")
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def layers(
    source: str, overrides: list[str] | None, *, environment: bool = True
) -> list[tuple[str, dict[str, Any]]]:
    """What each source sets, in rising order, with the source's name."""
    given = [(f"--set {item.partition('=')[0]}", _parse_override(item)) for item in overrides or []]
    return [
        (source, _read_toml(source)),
        *([(ENVIRONMENT, variables.read())] if environment else []),
        *given,
    ]


def merge(base: dict[str, Any], update: dict[str, Any]) -> None:
    """Lay `update`, which stays as it is, over `base`."""
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(base.setdefault(key, {}), dict):
            merge(base[key], value)
        else:
            base[key] = value


def _read_toml(source: str) -> dict[str, Any]:
    if not source:
        return {}
    if source in presets():
        data = importlib.resources.files("sppo.presets").joinpath(f"{source}.toml").read_bytes()
    else:
        path = Path(source)
        if not path.is_file():
            raise ConfigError(
                f"no configuration {source!r}: neither a file nor a preset ({', '.join(presets())})"
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{source} cannot be read: {error.strerror}") from error
    try:
        return tomllib.loads(utf8(data, source))
    except (
        ValueError,
        RecursionError,
    ) as error:  # besides what is no TOML: numbers of 4301 digits, endless nesting
        raise ConfigError(f"{source} is not valid TOML: {error}") from error


def utf8(data: bytes, source: str) -> str:
    """The text of a file, a byte order mark left out. Raises ConfigError with the line that is not
    UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `start` counts from behind the mark, where there is one.
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, start) + 1
        column = start - (data.rfind(b"\n", 0, start) + 1) + 1
        raise ConfigError(
            f"{source}:{line}: not UTF-8: byte 0x{data[start]:02x} at byte {column} of the line; "
            f"save the file as UTF-8"
        ) from error


def _parse_override(item: str) -> dict[str, Any]:
    key, equals, text = item.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f"--set {item!r}: write it as section.setting=value, such as optimizer.lr=1e-6"
        )
    if key in SECRETS:
        raise ConfigError(
            f"--set {key}: a command line is no place for a secret; use {variable(key)}"
        )
    try:
        read = tomllib.loads(f"value = {text}")
        value: Any = (
            read["value"] if len(read) == 1 else text
        )  # a line break would begin another setting
    except tomllib.TOMLDecodeError:
        value = text
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--set {key}: {error}") from error
    return _nested(key, value)


def _nested(key: str, value: Any) -> dict[str, Any]:
    """`optimizer.lr`, 1 as `{"optimizer": {"lr": 1}}`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)
