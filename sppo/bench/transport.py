"""`sppo-cli bench transport`: scored groups through a real server, from one process to another.

Four ways for the same groups through servers of the same kind, one after another: ours (frame, Lua
commit, claim, fetch, decode, settle), pickled arrays and msgpack lists (both SET and a stream
entry, read and deleted), and the limit: plain bytes of that size, which no one encodes or decodes.
What a way is worth is the rate of groups that have arrived as arrays at the other end. Beside them
SET alone by `redis-benchmark`, where it is installed.
"""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from sppo.bench.checks import Check, at_least
from sppo.config import BrokerConfig
from sppo.errors import BrokerError
from sppo.transport import codec
from sppo.transport.broker import Leases, PushResult
from sppo.transport.client import make_client
from sppo.transport.redis_broker import connect
from sppo.transport.server import executable
from sppo.types import Completion, Group, SamplingParams, Ticket, Version, VersionSpan

RUN = "bench"
EPOCH = "bench"
COMPLETIONS = 8
SIZES = (16 << 10, 256 << 10, 4 << 20)
WAYS = ("sppo", "pickle", "msgpack lists", "plain bytes")
BULK = SIZES[-1]
ROUNDS = 3
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast one way carried groups of one size."""

    way: str
    nbytes: int
    durable: bool
    """Whether the server wrote everything to its log before it answered, as the embedded one
    does.
    """
    groups_per_s: float
    mb_per_s: float


def measure(seconds: float, say: Callable[[str], None]) -> list[Rate]:
    """Every way at every size for about `seconds`; the largest three times, also without a log: the
    median counts.
    """
    rates = []
    for nbytes in SIZES:
        for durable in (True, False) if nbytes == BULK else (True,):
            rounds = ROUNDS if nbytes == BULK else 1
            found: dict[str, list[Rate]] = {}
            for i in range(rounds):  # in turns: a busy moment of the machine hits all of them
                say(
                    f"groups of {nbytes >> 10} KiB{'' if durable else ', no log'}, round {i + 1} "
                    f"of {rounds} ..."
                )
                for way in WAYS:
                    with _server(durable) as config:
                        found.setdefault(way, []).append(
                            _measure(config, way, nbytes, seconds, durable)
                        )
                with _server(durable) as config:
                    if (rate := _redis_benchmark(config, nbytes, durable)) is not None:
                        found.setdefault(rate.way, []).append(rate)
            rates += [
                sorted(each, key=lambda r: r.groups_per_s)[len(each) // 2]
                for each in found.values()
            ]
    return rates


def checks(rates: list[Rate]) -> list[Check]:
    """Ratios at the largest size, of rates of this run.

    What a group costs besides the disk shows without a log. With it, every way waits for the same
    writes: there the limit is what plain bytes reach.
    """
    bulk = {(r.way, r.durable): r.groups_per_s for r in rates if r.nbytes == BULK}
    memory, durable = bulk["sppo", False], bulk["sppo", True]
    return [
        at_least(
            "transport_vs_msgpack_lists",
            memory / bulk["msgpack lists", False],
            10.0,
            "x at 4 MiB, no log",
        ),
        at_least("transport_vs_pickle", memory / bulk["pickle", False], 0.5, "x at 4 MiB, no log"),
        at_least(
            "transport_vs_limit", durable / bulk["plain bytes", True], 0.5, "x at 4 MiB, durable"
        ),
    ]


@contextmanager
def _server(durable: bool) -> Iterator[BrokerConfig]:
    """A server of its own on a private socket: with the durability of the embedded one, or without
    a log.
    """
    folder = Path(tempfile.mkdtemp(prefix="sppo-bench-"))
    process = subprocess.Popen(
        [executable(), "--port", "0", "--unixsocket", str(folder / "s"), "--unixsocketperm", "700",
         "--save", "", "--dir", str(folder), "--appendonly", "yes" if durable else "no",
         "--appendfsync", "always"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while not (folder / "s").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield BrokerConfig(url=f"unix://{folder}/s", max_bytes=1 << 30, lease_s=600)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def group(index: int, nbytes: int) -> Group:
    """A group whose frame has about `nbytes`: 8 completions, for each token its id and its
    log-prob.
    """
    length = nbytes // 8 // COMPLETIONS
    rng = np.random.default_rng(index)
    completions = tuple(
        Completion(
            token_ids=rng.integers(0, 49152, length).astype(np.int32),
            behavior_logprobs=-rng.random(length, np.float32),
            spans=(VersionSpan(version=Version(epoch=EPOCH, n=0), start=0, end=length),),
            finish_reason="stop",
        )
        for _ in range(COMPLETIONS)
    )
    return Group(
        gid=f"{_uid(index)}.bench",
        uid=_uid(index),
        stream="train",
        prompt_ids=np.arange(64, dtype=np.int32),
        completions=completions,
        rewards=rng.random(COMPLETIONS, np.float32),
        generator="bench",
    )


def _uid(index: int) -> str:
    return f"train-{index:09d}"


def _measure(config: BrokerConfig, way: str, nbytes: int, seconds: float, durable: bool) -> Rate:
    """One producer process, one consumer here."""
    operator = connect(config, RUN)
    operator.tickets.open_epoch(EPOCH)
    context = multiprocessing.get_context("spawn")
    go, stop = context.Event(), context.Event()
    values = config.model_dump(mode="json") | {"password": config.password.get_secret_value()}
    producer = context.Process(target=_produce, args=(values, way, nbytes, go, stop), daemon=True)
    producer.start()
    if not go.wait(TIMEOUT_S):
        raise BrokerError("the producer did not start")
    consume = _Consumer(config, way)
    consume.take(1.0)  # connections and scripts are there
    started, count = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        count += consume.take(1.0)
    took = time.monotonic() - started
    stop.set()
    while producer.is_alive():
        consume.take(0.1)
    producer.join()
    if producer.exitcode != 0 or count < 3:
        raise BrokerError(
            f"{way}: the producer ended with {producer.exitcode} after {count} groups"
        )
    while consume.take(0.1):
        pass
    operator.close()
    rate = count / took
    return Rate(
        way=way, nbytes=nbytes, durable=durable, groups_per_s=rate, mb_per_s=rate * nbytes / 1e6
    )


def _produce(values: dict[str, Any], way: str, nbytes: int, go: Any, stop: Any) -> None:
    config = BrokerConfig(**values)
    made = [group(i, nbytes) for i in range(4)]
    frame = codec.encode_group(made[0])
    pack: dict[str, Callable[[Group], bytes]] = {
        "pickle": _pickled, "msgpack lists": _listed, "plain bytes": lambda _: frame
    }  # fmt: skip
    broker, client = connect(config, RUN), make_client(config)
    broker.tickets.open_epoch(EPOCH)
    go.set()
    index = 0
    while not stop.is_set():
        while broker.depths()["queued"] > 24 or int(client.xlen("sppo:bench-stream")) > 24:
            time.sleep(0.001)
        if way == "sppo":
            # The learner's part in a run.
            broker.tickets.issue([_ticket(i) for i in range(index, index + 8)])
        for _ in range(8):
            source = made[index % len(made)]
            if way == "sppo":
                _push(broker.leases, source)
            else:
                client.set(f"sppo:bench-{index}", pack[way](source))
                client.xadd("sppo:bench-stream", {"i": index})
            index += 1
    broker.close()
    client.close()


def _ticket(index: int) -> Ticket:
    sampling = SamplingParams(completions=COMPLETIONS, temperature=1.0, max_tokens=1, seed=0)
    return Ticket(
        uid=_uid(index),
        stream="train",
        prompt_ids=(1,),
        question="",
        scorer_data={},
        sampling=sampling,
        min_version=0,
    )


def _push(leases: Leases, source: Group) -> None:
    lease = leases.lease(Version(epoch=EPOCH, n=0))
    assert lease is not None
    uid = lease.ticket.uid
    named = Group(
        gid=f"{uid}.bench",
        uid=uid,
        stream="train",
        prompt_ids=source.prompt_ids,
        completions=source.completions,
        rewards=source.rewards,
        generator="bench",
    )
    while leases.push(named) is PushResult.FULL:
        time.sleep(0.001)


def _pickled(source: Group) -> bytes:
    return pickle.dumps(source, protocol=5)


def _listed(source: Group) -> bytes:
    completions = [[c.token_ids.tolist(), c.behavior_logprobs.tolist()] for c in source.completions]
    assert source.rewards is not None
    packed: bytes = msgpack.packb(
        [source.uid, source.prompt_ids.tolist(), completions, source.rewards.tolist()]
    )
    return packed


class _Consumer:
    """Takes what has arrived and turns it into arrays."""

    def __init__(self, config: BrokerConfig, way: str) -> None:
        self._way = way
        self._broker = connect(config, RUN)
        self._broker.tickets.open_epoch(EPOCH)
        self._client: Any = make_client(config)

    def take(self, wait_s: float) -> int:
        if self._way == "sppo":
            entries = self._broker.tickets.claim(8, wait_s)
            for entry in entries:
                frame = self._broker.tickets.fetch(entry)
                assert frame is not None
                codec.decode_group(frame)
            self._broker.tickets.settle(entries)
            return len(entries)
        reply = self._client.xread({"sppo:bench-stream": "0"}, count=8, block=int(wait_s * 1000))
        rows = (
            reply[0][1]
            if isinstance(reply, list) and reply
            else [r for v in (reply or {}).values() for r in v[0]]
        )
        for entry_id, fields in rows:
            name = f"sppo:bench-{int(fields[b'i'])}"
            self._decode(self._client.get(name))
            self._client.unlink(name)
            self._client.xdel("sppo:bench-stream", entry_id)
        return len(rows)

    def _decode(self, data: bytes) -> None:
        if self._way == "pickle":
            pickle.loads(data)  # our own, of a moment ago: only here, as the peer that users know
        elif self._way == "msgpack lists":
            _, prompt, completions, rewards = msgpack.unpackb(data)
            np.asarray(prompt, np.int32), np.asarray(rewards, np.float32)
            for tokens, logprobs in completions:
                np.asarray(tokens, np.int32), np.asarray(logprobs, np.float32)


def _redis_benchmark(config: BrokerConfig, nbytes: int, durable: bool) -> Rate | None:
    """SET alone on one connection; None if the tool is not installed."""
    tool = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if tool is None:
        return None
    count = max(50, min(5000, (256 << 20) // nbytes))
    socket = config.url.removeprefix("unix://")
    done = subprocess.run(
        [tool, "-s", socket, "-t", "set", "-d", str(nbytes), "-n", str(count), "-c", "1", "--csv"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rate = float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))
    return Rate(
        way="redis-benchmark SET",
        nbytes=nbytes,
        durable=durable,
        groups_per_s=rate,
        mb_per_s=rate * nbytes / 1e6,
    )
