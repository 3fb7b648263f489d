"""Ports, proxies, names, and a Ray that is up."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sppo.config import RunConfig, is_loopback
from sppo.doctor.findings import Finding, Run, fail, ok, warn
from sppo.launch import reach

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
FEW_PORTS = 2000
PATIENCE_S = 3.0
SLOW_S = 1.0


def ports(run: Run) -> list[Finding]:
    """Those that are given out by chance, and those that settings name."""
    first, last = map(int, EPHEMERAL.read_text(encoding="utf-8").split())
    with socket.create_server(("127.0.0.1", 0)):
        pass  # raises where loopback itself is not to be had
    said = f"{last - first + 1:,} are given out by chance ({first} to {last})"
    if last - first < FEW_PORTS:
        found = [warn("ports", f"{said}: Ray, weight syncs and services may run short of them",
                      "sysctl net.ipv4.ip_local_port_range='32768 60999'")]  # fmt: skip
    else:
        found = [ok("ports", said)]
    return found + _scorers(run.config, range(first, last + 1))


def _scorers(config: RunConfig, by_chance: range) -> list[Finding]:
    """The port of a scorer service of our own."""
    scorer = config.scorer
    if not scorer.port or scorer.url or scorer.mode != "http" or config.launch.ray_address:
        return []
    host = reach.own_address(config.broker.url) if scorer.host == "auto" else scorer.host
    at = f"scorer.port = {scorer.port} of {host}"
    try:
        socket.create_server((host, scorer.port)).close()
    except OSError as error:
        words = f"{at}: {error.strerror or error}"
        mend = "another scorer.port (0 takes a free one), or end what listens there: ss -ltnp"
        return [fail("scorer's port", words, mend)]
    if scorer.port in by_chance:
        words = f"{at} is free, and among those that are given out by chance"
        return [warn("scorer's port", words, f"one below {by_chance.start}")]
    return [ok("scorer's port", f"{at} is free")]


def proxies(run: Run) -> list[Finding]:
    """What goes through a proxy. Generators ask scorer services without one, and so are services
    watched; an endpoint of a judge on this machine is asked without, any other with it.
    """
    given = urllib.request.getproxies_environment()
    schemes = {name: url for name, url in given.items() if name in ("http", "https", "all")}
    if not schemes:
        return [ok("proxies", "none set")]
    named = ", ".join(f"{name}_proxy" for name in sorted(schemes))
    service, judge = run.config.scorer.url, run.config.scorer.judge.url
    if service and not _beside(service, given):
        return [
            warn("proxies", f"{named} is set, and scorer.url = {service!r} is asked without it",
                 "a service that is reached directly; nothing to do where it is")
        ]  # fmt: skip
    if judge and _private(judge) and not _beside(judge, given):
        host = urlsplit(judge).hostname
        return [
            warn("proxies", f"{named} is set, and the judge at {judge} is asked through it",
                 f"no_proxy={host}, if it is reached directly")
        ]  # fmt: skip
    return [ok("proxies", f"{named} is set: the hub and a judge elsewhere go through it; broker, "
               "weights and scorer services do not")]  # fmt: skip


def _beside(url: str, given: Mapping[str, str]) -> bool:
    """Whether no proxy is asked for this address."""
    host = urlsplit(url).hostname or ""
    return is_loopback(host) or bool(
        urllib.request.proxy_bypass_environment(host, dict(given))  # type: ignore[attr-defined]
    )


def _private(url: str) -> bool:
    """Whether an address is of a network of one's own: a number, or a name without a dot."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private and not is_loopback(host)
    except ValueError:
        return "." not in host and not is_loopback(host)


def names(run: Run) -> list[Finding]:
    """This machine's own name, then those in settings."""
    return [_own_name(run.config), *_named(run.config)]


def _own_name(config: RunConfig) -> Finding:
    own, many = socket.gethostname(), _many(config)
    addresses, took_s = _resolved(own)
    mend = f"a line in /etc/hosts: ADDRESS {own}"
    if not addresses:
        said = f"{own!r}, this machine's name, does not resolve"
        if many:
            return fail("names", f"{said}: Ray and torch ask for it", mend)
        return warn("names", f"{said}; on one machine roles use 127.0.0.1", mend)
    said = f"{own} is {', '.join(addresses)}"
    if many and all(map(is_loopback, addresses)):
        return warn("names", f"{said}: other machines that are told this address find themselves",
                    f"{mend}, with the address that others reach")  # fmt: skip
    if took_s > SLOW_S:
        return warn("names", f"{said}, after {took_s:.1f} s", f"{mend}, or a faster resolver")
    return ok("names", said)


def _many(config: RunConfig) -> bool:
    """Whether other machines take part."""
    at = urlsplit(config.broker.url)
    away = at.scheme in ("redis", "rediss") and not is_loopback(at.hostname or "")
    return bool(config.launch.ray_address) or away


def _named(config: RunConfig) -> list[Finding]:
    given = {
        "broker.url": config.broker.url,
        "scorer.url": config.scorer.url,
        "scorer.judge.url": config.scorer.judge.url,
    }
    found = []
    for setting, url in given.items():
        host = urlsplit(url).hostname or ""
        if host and not is_loopback(host) and not _resolved(host)[0]:
            words = f"{setting} = {url!r}: {host} does not resolve"
            found.append(fail("names", words, "mend the name, or the resolver of this machine"))
    return found


def _resolved(host: str) -> tuple[list[str], float]:
    """Addresses of a name, none where it has none or nobody answers in time; and the seconds."""
    found: list[str] = []
    began = time.monotonic()

    def ask() -> None:
        try:
            found.extend(str(row[4][0]) for row in socket.getaddrinfo(host, None))
        except OSError:
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return sorted(set(found)), time.monotonic() - began


def ray(run: Run) -> list[Finding]:
    """A cluster that the run is to join: whether its head listens."""
    address = run.config.launch.ray_address
    if not address:
        if os.environ.get("RAY_ADDRESS"):
            words = "RAY_ADDRESS is set, and `up` starts a Ray of its own on this machine"
            return [warn("Ray", words, "launch.ray_address = 'auto', if the cluster is meant")]
        return [ok("Ray", "`up` starts one of its own on loopback")]
    reach.check_broker(run.config)
    reach.check_hosts(run.config)
    head = _head(address)
    if not head:
        words = (
            f"launch.ray_address = {address!r}: neither RAY_ADDRESS is set nor does one run here"
        )
        return [
            fail("Ray", words, "ray start --address=HEAD:6379 on this machine, or name the head")
        ]
    host, _, port = head.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()
    except (OSError, ValueError) as error:
        words = f"launch.ray_address = {address!r}: {head} does not answer: {error}"
        return [fail("Ray", words, "is the cluster up? ray status, on its head")]
    token = "" if os.environ.get("RAY_AUTH_TOKEN") else "; RAY_AUTH_TOKEN is not set"
    return [ok("Ray", f"{head} answers{token}")]


def _head(address: str) -> str:
    """HOST:PORT of the head, as Ray finds it; empty where it would not."""
    if address != "auto":
        return address
    if given := os.environ.get("RAY_ADDRESS"):
        return given
    note = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    return note.read_text(encoding="utf-8").strip() if note.is_file() else ""
