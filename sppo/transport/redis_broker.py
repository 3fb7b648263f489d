"""The broker over the Redis protocol (Redis or Valkey). Atomic steps are the commented files in `lua/`.

Every write may reach the server twice, because the client resends a command whose reply was lost. Each step on tickets
and groups is idempotent for that reason; messages may be doubled, and their readers tolerate that.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from sppo.config import BrokerConfig
from sppo.errors import BrokerError, ConfigError, FencedError
from sppo.transport import codec
from sppo.transport.broker import Audience, Broker, Channel, IssueResult, PushResult
from sppo.types import DeadLetter, Group, Lease, Member, QueueEntry, Ticket, TicketStream, Version

CONSUMER_GROUP = "learner"
FRAME_TTL_S = 600
# A sync that is hundreds of messages behind is over; whoever missed it is announced the next one.
MESSAGES_KEPT: dict[Channel, int] = {"control": 256, "replies": 1024, "metrics": 20_000}
SOCKET_TIMEOUT_S = 15.0
_SCRIPTS = ("issue", "withdraw", "lease", "renew", "release", "push", "settle", "reject", "fail")

R = TypeVar("R")


def connect(config: BrokerConfig, run: str) -> RedisBroker:
    """A broker on `config.url`.

    Raises ConfigError when the server refuses the credentials and BrokerError when it cannot be reached.
    """
    try:
        client = _client(config)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"broker.url = {config.url!r}: {error}") from error
    broker = RedisBroker(client, run, config)
    broker.ping()
    return broker


def _client(config: BrokerConfig) -> redis.Redis:
    return redis.Redis.from_url(
        config.url,
        username=config.username or None,
        password=config.password.get_secret_value() or None,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=5.0,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), 5),
    )


class RedisBroker(Broker):
    """See `sppo.transport.broker`. Safe for use from several threads."""

    def __init__(self, client: redis.Redis, run: str, config: BrokerConfig) -> None:
        # redis-py types each reply as every form it might take; this client answers in bytes.
        self._client: Any = client
        self._prefix = f"sppo:{{{run}}}:"
        self._config = config
        self._epoch = ""
        folder = importlib.resources.files("sppo.transport").joinpath("lua")
        self._lua = {name: client.register_script(folder.joinpath(f"{name}.lua").read_text()) for name in _SCRIPTS}

    # learner ---------------------------------------------------------------------------------------------------
    def open_epoch(self, epoch: str) -> None:
        def run() -> None:
            self._client.set(self._key("epoch"), epoch)
            try:
                self._client.xgroup_create(self._key("q"), CONSUMER_GROUP, "0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

        self._epoch = epoch
        self._call(run)

    def issue(self, tickets: Sequence[Ticket]) -> list[IssueResult]:
        results = []
        for ticket in tickets:
            keys = ["epoch", "state", "tickets", "minv", "lease", _todo(ticket.stream)]
            args = [self._epoch, ticket.uid, codec.pack_ticket(ticket), ticket.min_version]
            results.append(cast("IssueResult", self._run("issue", keys, args).decode()))
        return results

    def withdraw(self, uids: Iterable[str]) -> None:
        keys = ["epoch", "tickets", "minv", "lease", "todo", "todo:eval", "attempts", "failures"]
        for uid in uids:
            self._run("withdraw", keys, [self._epoch, uid])

    def open_tickets(self) -> set[str]:
        return {uid.decode() for uid in self._call(lambda: self._client.hkeys(self._key("tickets")))}

    def claim(self, count: int, wait_s: float) -> list[QueueEntry]:
        return self._read_queue(">", count, wait_s)

    def pending(self) -> list[QueueEntry]:
        entries: list[QueueEntry] = []
        last = "0"
        while batch := self._read_queue(last, 500, 0):
            entries += batch
            last = batch[-1].entry_id
        return entries

    def fetch(self, entry: QueueEntry) -> bytes | None:
        return cast("bytes | None", self._call(lambda: self._client.get(self._key(f"b:{entry.gid}"))))

    def settle(self, entries: Sequence[QueueEntry]) -> None:
        for entry in entries:
            keys = ["epoch", "q", f"b:{entry.gid}", "bytes", "state", "tickets", "minv", "attempts", "failures"]
            self._run("settle", keys, [self._epoch, CONSUMER_GROUP, entry.entry_id, entry.uid, entry.nbytes])

    def reject(self, entry: QueueEntry, reason: str) -> None:
        keys = ["epoch", "q", f"b:{entry.gid}", "bytes", "state", "lease"]
        self._run("reject", keys, [self._epoch, CONSUMER_GROUP, entry.entry_id, entry.uid, entry.nbytes])
        self.fail(entry.uid, entry.gid, reason)  # both steps are idempotent, so a crash in between repeats them

    def dead_letters(self) -> list[DeadLetter]:
        rows = self._call(lambda: self._client.xrange(self._key("dead")))
        return [
            DeadLetter(
                uid=f[b"uid"].decode(),
                stream=cast("TicketStream", f[b"stream"].decode()),
                reason=f[b"reason"].decode(),
            )
            for _, f in rows
        ]

    # generator -------------------------------------------------------------------------------------------------
    def lease(self, applied: Version) -> Lease | None:
        keys = ["epoch", "tickets", "minv", "lease", "todo:eval", "todo", "attempts"]
        reply = self._run("lease", keys, [applied.epoch, applied.n, int(self._config.lease_s * 1000)])
        if reply is None:
            return None
        return Lease(ticket=codec.unpack_ticket(reply[0]), attempt=int(reply[1]))

    def renew(self, uids: Sequence[str]) -> None:
        if uids:
            self._run("renew", ["lease"], [int(self._config.lease_s * 1000), *uids])

    def release(self, uid: str) -> None:
        self._run("release", ["lease", _todo(_stream_of(uid)), "tickets"], [uid])

    def push(self, group: Group) -> PushResult:
        frame = codec.encode_group(group)
        name = self._key(f"b:{group.gid}")
        keys = ["q", f"b:{group.gid}", "state", "lease", "bytes", "tickets"]
        args = [group.gid, group.uid, group.stream, len(frame), self._config.max_groups, self._config.max_bytes]
        while True:
            self._call(lambda: self._client.set(name, frame, ex=FRAME_TTL_S))
            result = self._run("push", keys, args).decode()
            if result != "LOST":
                return PushResult(result)

    def fail(self, uid: str, attempt: str, reason: str) -> bool:
        stream = _stream_of(uid)
        keys = ["lease", _todo(stream), "failures", "state", "dead", "tickets", "minv"]
        return bool(self._run("fail", keys, [uid, stream, reason, self._config.max_attempts, attempt]))

    # everyone --------------------------------------------------------------------------------------------------
    def heartbeat(self, member: Member, ttl_s: float) -> None:
        value = codec.pack(asdict(member))
        self._call(lambda: self._client.set(self._key(f"hb:{member.name}"), value, px=int(ttl_s * 1000)))
        self._call(lambda: self._client.sadd(self._key("members"), member.name))

    def leave(self, name: str) -> None:
        self._call(lambda: self._client.delete(self._key(f"hb:{name}")))
        self._call(lambda: self._client.srem(self._key("members"), name))

    def members(self) -> list[Member]:
        names = sorted(n.decode() for n in self._call(lambda: self._client.smembers(self._key("members"))))
        if not names:
            return []
        values = self._call(lambda: self._client.mget([self._key(f"hb:{n}") for n in names]))
        return [Member(**codec.unpack(value)) for value in values if value is not None]

    def send(self, channel: Channel, message: bytes) -> None:
        self._call(lambda: self._client.xadd(self._key(channel), {"m": message}, maxlen=MESSAGES_KEPT[channel]))

    def tail(self, channel: Channel) -> str:
        newest = self._call(lambda: self._client.xrevrange(self._key(channel), count=1))
        return newest[0][0].decode() if newest else "0"

    def receive(self, channel: Channel, after: str, wait_s: float) -> list[tuple[str, bytes]]:
        name = self._key(channel)
        block = max(1, int(wait_s * 1000)) if wait_s > 0 else None
        reply = self._call(lambda: self._client.xread({name: after}, count=1000, block=block))
        return [(position.decode(), fields[b"m"]) for position, fields in _rows(reply)]

    def request_stop(self, audience: Audience, reason: str) -> None:
        self._call(lambda: self._client.set(self._key(f"stop:{audience}"), reason))

    def stop_reason(self, audience: Audience) -> str:
        value = self._call(lambda: self._client.get(self._key(f"stop:{audience}")))
        return value.decode() if value else ""

    def ping(self) -> str:
        info = self._call(lambda: self._client.info("server"))
        return str(info["run_id"])

    def depths(self) -> dict[str, int]:
        c = self._client
        return {
            "todo": self._call(lambda: c.llen(self._key("todo"))),
            "eval": self._call(lambda: c.llen(self._key("todo:eval"))),
            "leased": self._call(lambda: c.zcard(self._key("lease"))),
            "queued": self._call(lambda: c.xlen(self._key("q"))),
            "dead": self._call(lambda: c.xlen(self._key("dead"))),
            "bytes": int(self._call(lambda: c.get(self._key("bytes"))) or 0),
        }

    def close(self) -> None:
        self._client.close()

    # inside ----------------------------------------------------------------------------------------------------
    def _key(self, name: str) -> str:
        return self._prefix + name

    def _run(self, script: str, keys: list[str], args: Sequence[Any]) -> Any:
        # redis-py loads the script again when a restarted server does not know it (NOSCRIPT).
        return self._call(lambda: self._lua[script](keys=[self._key(k) for k in keys], args=list(args)))

    def _read_queue(self, start: str, count: int, wait_s: float) -> list[QueueEntry]:
        block = max(1, int(wait_s * 1000)) if wait_s > 0 else None
        stream = {self._key("q"): start}
        reply = self._call(lambda: self._client.xreadgroup(CONSUMER_GROUP, "rank0", stream, count=count, block=block))
        return [
            QueueEntry(
                entry_id=entry_id.decode(),
                gid=f[b"gid"].decode(),
                uid=f[b"uid"].decode(),
                stream=cast("TicketStream", f[b"stream"].decode()),
                nbytes=int(f[b"nbytes"]),
            )
            for entry_id, f in _rows(reply)
            if f
        ]

    def _call(self, run: Callable[[], R]) -> R:
        try:
            return run()
        except redis.AuthenticationError as error:
            raise ConfigError(
                f"broker {self._config.url}: {error}; set SPPO_BROKER__USERNAME and SPPO_BROKER__PASSWORD"
            ) from error
        except redis.ResponseError as error:
            if "FENCED" in str(error):
                raise FencedError("another learner has taken over this run; this one stops without writing") from error
            raise BrokerError(f"broker {self._config.url} refused a command: {error}") from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise BrokerError(
                f"broker.url = {self._config.url!r} cannot be reached: {error}; is the server running?"
            ) from error


def _todo(stream: str) -> str:
    return "todo:eval" if stream == "eval" else "todo"


def _stream_of(uid: str) -> TicketStream:
    return "eval" if uid.startswith("eval-") else "train"


def _rows(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The rows of an XREAD reply for one stream, in the list form of protocol 2 or the map form of protocol 3."""
    if not reply:
        return []
    streams = list(reply.values()) if isinstance(reply, dict) else [rows for _, rows in reply]
    rows = streams[0]
    if rows and isinstance(rows[0], list):  # protocol 3 wraps the rows once more
        rows = rows[0]
    return [(entry_id, fields or {}) for entry_id, fields in rows]
