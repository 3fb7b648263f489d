"""What roles on several machines must have: addresses by which they reach each other and the
broker, and variables of the environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from sppo.config import RunConfig, is_loopback
from sppo.errors import ConfigError
from sppo.weights import address

TRAVELS = ("HF_TOKEN", "HF_ENDPOINT", "NCCL_*")
"""Variables that a machine of a Ray cluster cannot know and a role needs."""


def travelling(named: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Of this environment, what roles on a Ray cluster get: `TRAVELS` and those that are `named`,
    by name or by a beginning and `*`.
    """
    return {
        name: value
        for name, value in environment.items()
        if any(fnmatchcase(name, pattern) for pattern in (*TRAVELS, *named))
    }


def check_broker(config: RunConfig) -> None:
    """Raises ConfigError where roles on other machines of a cluster could not reach the broker."""
    if not config.launch.ray_address:
        return
    if not config.broker.url:
        raise ConfigError(
            f"launch.ray_address = {config.launch.ray_address!r} with an empty broker.url: the "
            f"embedded broker serves "
            "this machine alone; name a server that every machine reaches: "
            "SPPO_BROKER__URL=rediss://HOST:6379"
        )


def check_hosts(config: RunConfig) -> None:
    """Raises ConfigError for an address that means another machine on every machine."""
    own = urlsplit(config.broker.url)
    hosts = {
        section: getattr(config, section).host for section in ("weights", "generator", "scorer")
    }
    local = [f"{section}.host = {host!r}" for section, host in hosts.items() if is_loopback(host)]
    if own.scheme == "unix" or is_loopback(own.hostname or ""):
        local.insert(0, f"broker.url = {config.broker.url!r}")
    if local:
        raise ConfigError(
            f"{local[0]}: the Ray cluster has several machines, and the others do not reach that; "
            f"name an address that "
            "they do (`auto` for a host)"
        )


def addressed(config: RunConfig) -> RunConfig:
    """The configuration with this machine's own address wherever a host is `auto`. Raises
    ConfigError.
    """
    hosts = {
        section: getattr(config, section).host for section in ("weights", "generator", "scorer")
    }
    changed = {
        section: getattr(config, section).model_copy(
            update={"host": own_address(config.broker.url)}
        )
        for section, host in hosts.items()
        if host == "auto"
    }
    return config.model_copy(update=changed)


def own_address(broker_url: str) -> str:
    """The address by which this machine reaches the broker; loopback if that is on this machine."""
    at = urlsplit(broker_url)
    if not at.hostname:
        return "127.0.0.1"
    try:
        found = address.towards(at.hostname, at.port or 6379)
    except OSError as error:
        raise ConfigError(
            f"broker.url = {broker_url!r}: no way there from this machine: {error.strerror}"
        ) from error
    if is_loopback(found) and not is_loopback(at.hostname):
        raise ConfigError(
            f"broker.url = {broker_url!r}: the server is on this machine, so `auto` finds {found}, "
            f"which others do not "
            "reach; write this machine's address into weights.host, generator.host and scorer.host"
        )
    return found
