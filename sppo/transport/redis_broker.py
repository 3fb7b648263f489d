"""The broker over the Redis protocol (Redis or Valkey). Atomic steps are the commented files in
`lua/`.

Every write may reach the server twice, because the client resends a command whose reply was lost.
Each step on tickets and groups is idempotent for that reason; messages may be doubled, and their
readers tolerate that. A server that is gone, loading or full is waited for up to `broker.outage_s`.
"""

from __future__ import annotations

import importlib.resources
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

import redis
from redis._parsers.encoders import Encoder
from redis.backoff import NoBackoff
from redis.connection import PythonRespSerializer
from redis.retry import Retry

from sppo.config import BrokerConfig
from sppo.errors import BadFrame, BrokerError, ConfigError, FencedError
from sppo.faults import point
from sppo.transport import codec
from sppo.transport.broker import Broker, Channel, IssueResult, PushResult
from sppo.types import DeadLetter, Group, Lease, Member, QueueEntry, Ticket, TicketStream, Version

CONSUMER_GROUP = "learner"
FRAME_TTL_S = 600
MEMBER_STOP_TTL_S = 120
# A sync that is hundreds of messages behind is over; whoever missed it is announced the next one.
MESSAGES_KEPT: dict[Channel, int] = {"control": 256, "replies": 1024, "metrics": 20_000}
SETTLED_AT_ONCE = 64
MEMORY_MARGIN = 1.25
SOCKET_TIMEOUT_S = 15.0
RETRY_S = 0.2
BULK = 6000
"""Arguments above so many bytes go to the socket as they are, without a copy into the command."""
READ_BYTES = 1 << 20
AWAY = ("READONLY", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED", "BUSY ", "LOADING")
"""Answers of a server that changes its role or runs a long command."""
_SCRIPTS = (
    "open", "reopen", "confirm", "issue", "withdraw", "lease", "renew", "release", "push", "settle", "reject", "fail"
)  # fmt: skip

# redis-py 8.1 reads the port of a connection that fails; a Unix socket has none, and an
# AttributeError hides the error.
redis.UnixDomainSocketConnection.port = 0  # type: ignore[attr-defined]

R = TypeVar("R")
log = logging.getLogger(__name__)


def connect(config: BrokerConfig, run: str, *, wait: bool = False) -> RedisBroker:
    """A broker on `config.url`. It must answer now, unless `wait`; later calls wait for it up to
    `broker.outage_s`.

    Raises ConfigError when the server refuses the credentials and BrokerError when it cannot be
    reached.
    """
    try:
        client = make_client(config)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"broker.url = {config.url!r}: {error}") from error
    broker = RedisBroker(client, run, config)
    if wait:
        broker.ping()
    else:
        broker.check()
    return broker


def make_client(config: BrokerConfig, *, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A plain client with the credentials of these settings. Raises ValueError for an address it
    cannot parse.
    """
    tls = (
        {"ssl_ca_certs": config.tls_ca}
        if config.url.startswith("rediss://") and config.tls_ca
        else {}
    )
    return redis.Redis.from_url(
        config.url,
        username=config.username or None,
        password=config.password.get_secret_value() or None,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(5.0, timeout_s),
        socket_read_size=READ_BYTES,
        retry=Retry(NoBackoff(), 0),  # RedisBroker repeats, and knows for how long
        command_packer=_packer(),
        **tls,
    )


def _packer() -> Any:
    encoder = Encoder("utf-8", "strict", False)  # type: ignore[no-untyped-call]
    return PythonRespSerializer(BULK, encoder.encode)


class RedisBroker(Broker):
    """See `sppo.transport.broker`. Safe for use from several threads."""

    def __init__(self, client: redis.Redis, run: str, config: BrokerConfig) -> None:
        # redis-py types each reply as every form it might take; this client answers in bytes.
        self._client: Any = client
        self.run_key = run
        self._prefix = f"sppo:{{{run}}}:"
        self._config = config
        self._epoch = self._replaced = ""
        self._announced: tuple[str, bytes] | None = None
        self._was_full = False
        folder = importlib.resources.files("sppo.transport").joinpath("lua")
        self._lua = {
            name: client.register_script(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8"))
            for name in _SCRIPTS
        }

    # learner --------------------------------------------------------------------------------------
    def open_epoch(self, epoch: str) -> None:
        keys, args = ["epoch", "epoch:before", "q"], [epoch, CONSUMER_GROUP]
        self._replaced = self._run("open", keys, args).decode()
        self._epoch = epoch

    def announce(self, name: str, record: bytes) -> None:
        """Say what run has this name (`sppo.transport.runs`); said again to a server that has lost
        it.
        """
        self._announced = name, record
        self._call(lambda: self._client.set(_run_name(name), record))

    def get_run(self, name: str) -> bytes | None:
        """What was announced last under this name."""
        return cast("bytes | None", self._call(lambda: self._client.get(_run_name(name))))

    def alive(self, member: str) -> bool:
        """Whether this member's heartbeat is there."""
        return bool(self._call(lambda: self._client.exists(self._key(f"hb:{member}"))))

    def confirm_epoch(self) -> None:
        self._run("confirm", ["epoch"], [self._epoch])

    def issue(self, tickets: Sequence[Ticket]) -> list[IssueResult]:
        calls = [
            (
                ["epoch", "state", "tickets", "minv", "lease", _todo(ticket.stream)],
                [self._epoch, ticket.uid, codec.pack_ticket(ticket), ticket.min_version],
            )
            for ticket in tickets
        ]
        return [cast("IssueResult", reply.decode()) for reply in self._run_many("issue", calls)]

    def withdraw(self, uids: Iterable[str]) -> None:
        keys = ["epoch", "tickets", "minv", "lease", "todo", "todo:eval", "attempts", "failures"]
        self._run_many("withdraw", [(keys, [self._epoch, uid]) for uid in uids])

    def open_tickets(self) -> set[str]:
        return {
            uid.decode() for uid in self._call(lambda: self._client.hkeys(self._key("tickets")))
        }

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
        return cast(
            "bytes | None", self._call(lambda: self._client.get(self._key(f"b:{entry.gid}")))
        )

    def settle(self, entries: Sequence[QueueEntry]) -> None:
        calls = [
            (
                [
                    "epoch",
                    "q",
                    f"b:{entry.gid}",
                    "bytes",
                    "state",
                    "tickets",
                    "minv",
                    "attempts",
                    "failures",
                ],
                [self._epoch, CONSUMER_GROUP, entry.entry_id, entry.uid, entry.nbytes, entry.gid],
            )
            for entry in entries
        ]
        for i in range(0, len(calls), SETTLED_AT_ONCE):
            self._run_many("settle", calls[i : i + SETTLED_AT_ONCE])
            point("learner.settle.begun")

    def reject(self, entry: QueueEntry, reason: str) -> None:
        keys = ["epoch", "q", f"b:{entry.gid}", "bytes", "state", "lease"]
        self._run(
            "reject", keys, [self._epoch, CONSUMER_GROUP, entry.entry_id, entry.uid, entry.nbytes]
        )
        point("learner.frame.rejected")
        self.fail(
            entry.uid, entry.gid, reason
        )  # both steps are idempotent, so a crash in between repeats them

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

    # generator ------------------------------------------------------------------------------------
    def lease(self, applied: Version) -> Lease | None:
        keys = ["tickets", "minv", "lease", "todo:eval", "todo", "attempts"]
        args = [applied.epoch, applied.n, int(self._config.lease_s * 1000), self._key("epoch")]
        reply = self._run("lease", keys, args)
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
        if len(frame) > self._config.max_bytes // 2:
            raise ValueError(
                f"the group takes {len(frame)} bytes, more than half of broker.max_bytes = "
                f"{self._config.max_bytes}"
            )
        name = self._key(f"b:{group.gid}")
        keys = ["q", f"b:{group.gid}", "state", "lease", "bytes", "tickets"]
        args = [
            group.gid,
            group.uid,
            group.stream,
            len(frame),
            self._config.max_groups,
            self._config.max_bytes,
        ]
        if self._was_full and not self._has_room(len(frame)):
            return PushResult.FULL  # without sending the frame again only to hear so
        while True:
            # A server out of memory refuses this one write; for the caller that is a full queue.
            if not self._call(
                lambda: self._client.set(name, frame, ex=FRAME_TTL_S), when_full=lambda: False
            ):
                return PushResult.FULL
            point("generator.push.stored")
            result = self._run("push", keys, args).decode()
            self._was_full = result == "FULL"
            if result != "LOST":
                return PushResult(result)

    def _has_room(self, nbytes: int) -> bool:
        groups = self._call(lambda: self._client.xlen(self._key("q")))
        used = int(self._call(lambda: self._client.get(self._key("bytes"))) or 0)
        return bool(groups < self._config.max_groups and used + nbytes <= self._config.max_bytes)

    def fail(self, uid: str, attempt: str, reason: str, final: bool = False) -> bool:
        stream = _stream_of(uid)
        most = 1 if final else self._config.max_attempts
        keys = ["lease", _todo(stream), "failures", "state", "dead", "tickets", "minv"]
        return bool(self._run("fail", keys, [uid, stream, reason, most, attempt]))

    # everyone -------------------------------------------------------------------------------------
    def heartbeat(self, member: Member, ttl_s: float) -> None:
        value = codec.pack(asdict(member))
        self._call(
            lambda: self._client.set(self._key(f"hb:{member.name}"), value, px=int(ttl_s * 1000))
        )
        self._call(lambda: self._client.sadd(self._key("members"), member.name))

    def leave(self, name: str) -> None:
        self._call(lambda: self._client.delete(self._key(f"hb:{name}")))
        self._call(lambda: self._client.srem(self._key("members"), name))

    def members(self) -> list[Member]:
        names = sorted(
            n.decode() for n in self._call(lambda: self._client.smembers(self._key("members")))
        )
        if not names:
            return []
        values = self._call(lambda: self._client.mget([self._key(f"hb:{n}") for n in names]))
        return [
            member
            for value in values
            if value is not None and (member := _member(value)) is not None
        ]

    def send(self, channel: Channel, message: bytes) -> None:
        self._call(
            lambda: self._client.xadd(
                self._key(channel), {"m": message}, maxlen=MESSAGES_KEPT[channel]
            )
        )

    def tail(self, channel: Channel) -> str:
        newest = self._call(lambda: self._client.xrevrange(self._key(channel), count=1))
        return newest[0][0].decode() if newest else "0"

    def receive(self, channel: Channel, after: str, wait_s: float) -> list[tuple[str, bytes]]:
        name = self._key(channel)
        block = max(1, int(wait_s * 1000)) if wait_s > 0 else None
        reply = self._call(lambda: self._client.xread({name: after}, count=1000, block=block))
        return [(position.decode(), fields[b"m"]) for position, fields in _rows(reply)]

    def request_stop(self, audience: str, reason: str) -> None:
        # One member's is for the process that has the name now, not for whoever takes it later.
        expires = None if audience in ("learner", "workers") else MEMBER_STOP_TTL_S
        self._call(lambda: self._client.set(self._key(f"stop:{audience}"), reason, ex=expires))

    def stop_reason(self, *audiences: str) -> str:
        values = self._call(lambda: self._client.mget([self._key(f"stop:{a}") for a in audiences]))
        return str(next((value.decode() for value in values if value), ""))

    def ping(self) -> str:
        info = self._call(lambda: self._client.info("server"))
        return str(info["run_id"])

    def check(self) -> None:
        """Raises ConfigError or BrokerError if the server does not answer at once."""
        self._call(lambda: self._client.info("server"), patience_s=0.0)

    def check_memory(self) -> None:
        """Raises ConfigError if the server may drop keys, or has less memory than the run may
        queue.
        """
        memory = self._call(lambda: self._client.info("memory"), patience_s=0.0)
        policy, limit = (
            str(memory.get("maxmemory_policy", "noeviction")),
            int(memory.get("maxmemory", 0)),
        )
        if limit and policy != "noeviction":
            raise ConfigError(
                f"broker.url = {self._config.url!r}: maxmemory-policy is {policy}, which drops "
                f"tickets in silence; "
                "set noeviction"
            )
        if limit and limit < self._config.max_bytes * MEMORY_MARGIN:
            raise ConfigError(
                f"broker.max_bytes = {self._config.max_bytes}: the server's maxmemory is {limit}; "
                f"lower the one to {int(limit / MEMORY_MARGIN)}, or raise the other"
            )

    def leftovers(self) -> list[str]:
        """What is still there of work that should have ended: for an audit after a run; walks over
        every key.
        """
        found = []
        names = self._call(
            lambda: list(self._client.scan_iter(match=f"{glob(self._key('b:'))}*", count=1000))
        )
        expiries = self._call(lambda: [self._client.ttl(name) for name in names])
        found += [
            f"frame {n.decode()} without an expiry"
            for n, ttl in zip(names, expiries, strict=True)
            if ttl == -1
        ]
        depths = self.depths()
        found += [f"{k} {depths[k]}" for k in ("queued", "bytes") if depths[k]]
        open_tickets = len(self.open_tickets())
        return found + ([f"open tickets {open_tickets}"] if open_tickets else [])

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

    # inside ---------------------------------------------------------------------------------------
    def _key(self, name: str) -> str:
        return self._prefix + name

    def _run_many(self, script: str, calls: Sequence[tuple[list[str], list[Any]]]) -> list[Any]:
        """The same step for many arguments in one round trip, and so one flush of the server's
        log.
        """
        if not calls:
            return []

        def send() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipe:
                for keys, args in calls:
                    pipe.evalsha(
                        self._lua[script].sha, len(keys), *(self._key(k) for k in keys), *args
                    )
                return cast("list[Any]", pipe.execute())

        def run() -> list[Any]:
            try:
                return send()
            except (
                redis.exceptions.NoScriptError
            ):  # a server that has restarted; each step may be repeated
                self._client.script_load(self._lua[script].script)
                return send()

        return self._fenced(run)

    def _run(self, script: str, keys: list[str], args: Sequence[Any]) -> Any:
        # redis-py loads the script again when a restarted server does not know it (NOSCRIPT).
        return self._fenced(
            lambda: self._lua[script](keys=[self._key(k) for k in keys], args=list(args))
        )

    def _fenced(self, run: Callable[[], R]) -> R:
        try:
            return self._call(run)
        except FencedError:
            if not (self._epoch and self._reopen()):
                raise
            return self._call(run)

    def _reopen(self) -> bool:
        """Whether the run is ours all the same: a server that lost its newest writes does not know
        of our epoch.
        """
        names = [self._key(k) for k in ("epoch", "epoch:before", "q")]
        args = [self._epoch, CONSUMER_GROUP, self._replaced]
        again = bool(self._call(lambda: self._lua["reopen"](keys=names, args=args)))
        if again:
            log.warning(
                "the broker had lost its newest writes; this learner has taken the run back"
            )
            if self._announced is not None:
                self.announce(*self._announced)
        return again

    def _read_queue(self, start: str, count: int, wait_s: float) -> list[QueueEntry]:
        block = max(1, int(wait_s * 1000)) if wait_s > 0 else None
        stream = {self._key("q"): start}

        def read() -> Any:
            try:
                return self._client.xreadgroup(
                    CONSUMER_GROUP, "rank0", stream, count=count, block=block
                )
            except redis.ResponseError as error:
                if "NOGROUP" in str(
                    error
                ):  # the server lost the queue; the learner reconciles when it sees a new boot
                    self._run("confirm", ["epoch"], [self._epoch])
                    self._reopen()
                    return None
                raise

        reply = self._call(read)
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

    def _call(
        self,
        run: Callable[[], R],
        *,
        patience_s: float | None = None,
        when_full: Callable[[], R] | None = None,
    ) -> R:
        """`run`, repeated while the server is gone, loading or full, for `broker.outage_s` unless
        told otherwise.
        """
        patience_s = self._config.outage_s if patience_s is None else patience_s
        began = told = time.monotonic()
        cause: Exception
        while True:
            try:
                return run()
            except redis.AuthenticationError as error:
                raise ConfigError(
                    f"broker {self._config.url}: {error}; set SPPO_BROKER__USERNAME and "
                    f"SPPO_BROKER__PASSWORD"
                ) from error
            except redis.exceptions.OutOfMemoryError as error:
                if when_full is not None:
                    return when_full()
                problem, mend, cause = (
                    "is out of memory",
                    "raise its maxmemory or lower broker.max_bytes",
                    error,
                )
            except redis.ResponseError as error:
                if "FENCED" in str(error):
                    raise FencedError(
                        "another learner has taken over this run; this one stops without writing"
                    ) from error
                if "MISCONF" in str(error):
                    problem, mend, cause = (
                        f"cannot write to its disk: {error}",
                        "free some disk space",
                        error,
                    )
                elif any(word in str(error) for word in AWAY):
                    self._client.connection_pool.disconnect(
                        inuse_connections=False
                    )  # perhaps another server answers at this address now
                    problem, mend, cause = (
                        f"is not the primary, or busy: {error}",
                        "look at the server",
                        error,
                    )
                else:
                    raise BrokerError(
                        f"broker {self._config.url} refused a command: {error}"
                    ) from error
            except (redis.ConnectionError, redis.TimeoutError) as error:
                problem, mend, cause = (
                    f"cannot be reached: {error}",
                    "is the server running?",
                    error,
                )
            now = time.monotonic()
            if now - began >= patience_s:
                waited = f" for {now - began:.0f} s" if patience_s else ""
                raise BrokerError(
                    f"broker.url = {self._config.url!r} {problem}{waited}; {mend}"
                ) from cause
            if now - told > 2:
                told = now
                log.warning(
                    "broker %s; waiting, up to broker.outage_s = %.0f s", problem, patience_s
                )
            time.sleep(RETRY_S)


def _member(value: bytes) -> Member | None:
    try:
        return Member(**codec.unpack(value))
    except (BadFrame, TypeError):  # of another version, or nonsense: nobody to work with
        log.warning("an entry of the registry cannot be read: %r", value[:100])
        return None


def _run_name(name: str) -> str:
    return f"sppo:{name}:run"


def glob(text: str) -> str:
    """A text as a pattern that matches itself alone."""
    return "".join(f"[{c}]" if c in "*?[\\" else c for c in text)


def _todo(stream: str) -> str:
    return "todo:eval" if stream == "eval" else "todo"


def _stream_of(uid: str) -> TicketStream:
    return "eval" if uid.startswith("eval-") else "train"


def _rows(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The rows of an XREAD reply for one stream, in the list form of protocol 2 or the map form of
    protocol 3.
    """
    if not reply:
        return []
    streams = list(reply.values()) if isinstance(reply, dict) else [rows for _, rows in reply]
    rows = streams[0]
    if rows and isinstance(rows[0], list):  # protocol 3 wraps the rows once more
        rows = rows[0]
    return [(entry_id, fields or {}) for entry_id, fields in rows]
