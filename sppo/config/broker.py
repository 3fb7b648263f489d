"""[broker]: the server that tickets and groups go through."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from sppo.config.fields import FREE, PER_ROLE, Positive, Seconds, Settings


class BrokerConfig(Settings):
    url: Annotated[str, PER_ROLE] = ""
    """`redis://`, `rediss://` or `unix://` address of your own server; empty starts an embedded
    one.
    """
    username: Annotated[str, PER_ROLE] = ""
    """User of your own server."""
    password: SecretStr = SecretStr("")
    """Password of your own server; give it as SPPO_BROKER__PASSWORD."""
    tls_ca: Annotated[str, FREE] = ""
    """Certificate authority (a PEM file) of a `rediss://` server; empty takes the system's."""
    lease_s: Annotated[Seconds, FREE] = 20.0
    """How long a ticket is on loan without renewal: after so long the work of a generator that died
    is given to others. Renewed four times as often.
    """
    outage_s: Annotated[Seconds, FREE] = 60.0
    """How long a role waits for a server that is gone, loading or full before it gives up."""
    max_attempts: Annotated[Positive, PER_ROLE] = 3
    """Reported failures of one ticket before it becomes a dead letter."""
    max_groups: Annotated[Positive, FREE] = 4096
    """Groups in the queue before generators are held back."""
    max_bytes: Annotated[int, Field(gt=0, le=2**53), FREE] = 2 * 1024**3
    """Bytes in the queue before generators are held back."""

    @field_validator("url")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if value.startswith("rediss://") and "?" in value:
            raise ValueError(
                "takes no options after a question mark: certificates are always verified "
                "(broker.tls_ca)"
            )
        if "@" in value or "password=" in value or "username=" in value:
            raise ValueError(
                "carries credentials; give them as SPPO_BROKER__USERNAME and SPPO_BROKER__PASSWORD"
            )
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        urlsplit(value).port  # noqa: B018 - raises ValueError for one that is no number or too large
        return value

    @model_validator(mode="after")
    def _safe(self) -> BrokerConfig:
        host = urlsplit(self.url).hostname or ""
        if self.url.startswith("unix://") or not self.url or is_loopback(host):
            return self
        if not self.url.startswith("rediss://"):
            raise ValueError(
                f"url = {self.url!r}: prompts, tickets and the password would cross the network in "
                f"the clear; "
                "give the server TLS and write rediss://"
            )
        return self

    @field_validator("tls_ca")
    @classmethod
    def _there(cls, value: str) -> str:
        if value and not Path(value).is_file():
            raise ValueError("no such file")
        return value

    @property
    def renew_s(self) -> float:
        """How often a generator renews the leases it works on."""
        return self.lease_s / 4


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
