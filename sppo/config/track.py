"""[track] and [metrics]: where a run is shown besides its own directory."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, model_validator

from sppo.config.broker import is_loopback
from sppo.config.fields import FREE, Settings

Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


class TrackConfig(Settings):
    to: Annotated[tuple[Tracker, ...], FREE] = ()
    """Trackers that get metrics, evaluations, samples and settings: `tensorboard`, `wandb`,
    `trackio`, `mlflow`, each an extra of that name (docs/tracking.md).
    """


class MetricsConfig(Settings):
    address: Annotated[str, FREE] = ""
    """Where `up`, or `learner` by hand, serves `/metrics` of the whole run to Prometheus, such as
    `127.0.0.1:9464`; port 0 takes a free one, empty serves none (docs/tracking.md).
    """
    token: SecretStr = SecretStr("")
    """Bearer token that whoever reads `/metrics` brings; beyond loopback it is needed."""

    @model_validator(mode="after")
    def _of_one(self) -> MetricsConfig:
        if self.address and self.place[0] in ("0.0.0.0", "::"):
            raise ValueError(f"address = {self.address!r}: name one address of this machine")
        return self

    @property
    def lacks_token(self) -> bool:
        """Whether nothing may listen there. No check of the settings, which roles and commands read
        without this secret: they serve nothing.
        """
        beyond = bool(self.address) and not is_loopback(self.place[0])
        return beyond and not self.token.get_secret_value()

    @property
    def place(self) -> tuple[str, int]:
        """Host and port. Raises ValueError for an address that is none."""
        try:
            parts = urlsplit(f"//{self.address}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if host is None or port is None or parts.netloc != self.address or "@" in self.address:
            raise ValueError(f"address = {self.address!r}: write host:port, as 127.0.0.1:9464")
        return host, port
