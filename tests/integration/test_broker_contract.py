"""One contract for every broker: in memory, the embedded Valkey, a plain redis-server."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sppo.config import BrokerConfig
from sppo.errors import FencedError
from sppo.transport import codec
from sppo.transport.broker import Broker, PushResult
from sppo.transport.memory import MemoryBroker
from sppo.transport.redis_broker import connect
from sppo.types import Lease, Member, Version
from tests import makers

V = Version(epoch="a", n=0)
SMALL = {"lease_s": 0.4, "max_groups": 3}


class Clients:
    """Makes clients of one fresh run on one server."""

    def __init__(self, make: Callable[..., Broker]) -> None:
        self._make = make
        self.made: list[Broker] = []

    def __call__(self, **settings: Any) -> Broker:
        self.made.append(self._make(**settings))
        return self.made[-1]


@pytest.fixture(params=["memory", "embedded", "plain_redis"])
def client(request: pytest.FixtureRequest) -> Iterator[Clients]:
    if request.param == "memory":
        server = MemoryBroker(BrokerConfig(**SMALL))
        clients = Clients(server.session)
    else:
        config: BrokerConfig = request.getfixturevalue(request.param).model_copy(update=SMALL)
        run = uuid.uuid4().hex
        clients = Clients(lambda **own: connect(config.model_copy(update=own), run))
    yield clients
    for made in clients.made:
        made.close()


@pytest.fixture
def learner(client: Clients) -> Broker:
    broker = client()
    broker.tickets.open_epoch("a")
    return broker


def take(broker: Broker, version: Version = V) -> Lease:
    lease = broker.leases.lease(version)
    assert lease is not None
    return lease


def produce(broker: Broker, count: int) -> list[str]:
    uids = []
    for _ in range(count):
        lease = take(broker)
        assert broker.leases.push(makers.group(lease.ticket.uid)) is PushResult.OK
        uids.append(lease.ticket.uid)
    return uids


def test_a_ticket_travels_from_issue_to_settlement(learner: Broker, client: Clients) -> None:
    generator = client()
    ticket = makers.ticket()
    assert learner.tickets.issue([ticket]) == ["issued"]
    lease = take(generator)
    assert (lease.ticket, lease.attempt) == (ticket, 1)
    assert generator.leases.lease(V) is None
    assert generator.leases.push(makers.group()) is PushResult.OK
    (entry,) = learner.tickets.claim(10, 1)
    frame = learner.tickets.fetch(entry)
    assert frame is not None
    assert codec.decode_group(frame).uid == entry.uid == ticket.uid
    assert len(frame) == entry.nbytes
    assert learner.tickets.pending() == [entry]
    learner.tickets.settle([entry])
    learner.tickets.settle([entry])  # the reply was lost, the client sends it again
    assert learner.tickets.pending() == []
    assert learner.tickets.fetch(entry) is None
    assert learner.tickets.open_tickets() == set()
    assert set(learner.depths().values()) == {0}


def test_issuing_is_idempotent_wherever_the_ticket_is(learner: Broker) -> None:
    ticket = makers.ticket()
    assert learner.tickets.issue([ticket]) == ["issued"]
    assert learner.tickets.issue([ticket]) == ["open"]  # waiting
    take(learner)
    assert learner.tickets.issue([ticket]) == ["open"]  # leased
    learner.leases.push(makers.group())
    assert learner.tickets.issue([ticket]) == ["open"]  # queued
    (entry,) = learner.tickets.claim(1, 1)
    learner.tickets.settle([entry])
    assert learner.tickets.issue([ticket]) == [
        "issued"
    ]  # settled, but the learner's checkpoint does not cover it


def test_a_second_push_of_a_ticket_is_dropped(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket()])
    take(learner)
    assert learner.leases.push(makers.group(gid="one")) is PushResult.OK
    assert (
        learner.leases.push(makers.group(gid="one")) is PushResult.DUPLICATE
    )  # a retry of the same push
    assert learner.leases.push(makers.group(gid="two")) is PushResult.DUPLICATE  # another attempt
    entries = learner.tickets.claim(10, 1)
    assert [e.gid for e in entries] == ["one"]
    assert learner.tickets.fetch(entries[0]) is not None  # the retry did not take the frame away
    learner.tickets.settle(entries)
    assert learner.leases.push(makers.group(gid="three")) is PushResult.DUPLICATE  # after the end
    assert learner.tickets.claim(10, 0) == []


def test_a_push_of_a_ticket_nobody_issued_is_dropped(learner: Broker) -> None:
    assert learner.leases.push(makers.group("train-000000099")) is PushResult.DUPLICATE
    assert learner.tickets.claim(10, 0) == []


def test_an_expired_lease_is_lent_again_and_renewal_prevents_it(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket("train-000000000"), makers.ticket("train-000000001")])
    kept, lost = take(learner).ticket.uid, take(learner).ticket.uid
    for _ in range(3):
        time.sleep(0.2)
        learner.leases.renew([kept])
    again = take(learner)
    assert (again.ticket.uid, again.attempt) == (lost, 2)
    assert learner.leases.lease(V) is None


def test_renewing_an_ended_lease_does_not_bring_it_back(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket()])
    uid = take(learner).ticket.uid
    learner.leases.push(makers.group(uid))
    learner.leases.renew([uid])
    assert learner.depths()["leased"] == 0


def test_a_lease_of_a_ticket_that_was_settled_meanwhile_is_forgotten(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket()])
    uid = take(learner).ticket.uid
    time.sleep(0.5)
    take(learner)  # a second attempt, after the first one's lease ran out
    learner.leases.push(makers.group(uid, gid="first"))
    learner.tickets.settle(learner.tickets.claim(1, 1))
    learner.leases.release(uid, "train")
    assert learner.leases.lease(V) is None
    assert set(learner.depths().values()) == {0}


def test_a_failure_that_would_come_again_gives_the_ticket_up_at_once(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket()])
    uid = take(learner).ticket.uid
    assert learner.leases.fail(uid, "train", "try 0", "wrong for good", True) is True
    assert learner.leases.lease(V) is None
    assert [(d.uid, d.reason) for d in learner.tickets.dead_letters()] == [(uid, "wrong for good")]


def test_a_released_ticket_is_next(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket("train-000000000"), makers.ticket("train-000000001")])
    uid = take(learner).ticket.uid
    learner.leases.release(uid, "train")
    learner.leases.release(uid, "train")
    assert take(learner).ticket.uid == uid
    assert take(learner).ticket.uid == "train-000000001"


def test_weights_that_are_too_old_or_of_another_life_get_no_ticket(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket(min_version=3)])
    assert learner.leases.lease(Version(epoch="a", n=2)) is None
    assert learner.leases.lease(Version(epoch="b", n=3)) is None
    assert learner.leases.lease(Version(epoch="a", n=3)) is not None


def test_evaluation_goes_first_and_does_not_wait_behind_training(learner: Broker) -> None:
    learner.tickets.issue(
        [makers.ticket("train-000000000", min_version=9), makers.ticket("eval-a-0")]
    )
    assert take(learner).ticket.uid == "eval-a-0"
    assert learner.leases.lease(V) is None


def test_a_full_queue_holds_generators_back(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(4)])
    produce(learner, 3)
    last = take(learner).ticket.uid
    assert learner.leases.push(makers.group(last)) is PushResult.FULL
    learner.tickets.settle(learner.tickets.claim(1, 1))
    assert learner.leases.push(makers.group(last)) is PushResult.OK


def test_failures_are_retried_and_then_dead_lettered_once(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket("train-000000005")])
    for attempt in range(3):
        uid = take(learner).ticket.uid
        assert learner.leases.fail(uid, "train", f"try {attempt}", f"reason {attempt}") == (
            attempt == 2
        )
        assert learner.leases.fail(uid, "train", f"try {attempt}", "the reply was lost") == (
            attempt == 2
        )  # counts once
    assert learner.leases.lease(V) is None
    assert learner.leases.fail("train-000000005", "train", "another", "late") is False
    (letter,) = learner.tickets.dead_letters()
    assert (letter.uid, letter.stream, letter.reason) == ("train-000000005", "train", "reason 2")
    assert learner.tickets.issue([makers.ticket("train-000000005")]) == ["dead"]
    assert learner.tickets.open_tickets() == set()


def test_a_rejected_group_is_made_again(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket()])
    produce(learner, 1)
    (entry,) = learner.tickets.claim(1, 1)
    learner.tickets.reject(entry, "bad frame")
    learner.tickets.reject(entry, "bad frame")  # resent
    assert learner.tickets.fetch(entry) is None
    assert take(learner).ticket.uid == entry.uid
    assert learner.depths()["bytes"] == 0


def test_a_new_epoch_fences_the_old_learner_and_inherits_its_claims(
    learner: Broker, client: Clients
) -> None:
    learner.tickets.issue([makers.ticket("train-000000000"), makers.ticket("train-000000001")])
    produce(learner, 2)
    claimed = learner.tickets.claim(1, 1)
    successor = client()
    successor.tickets.open_epoch("b")
    for act in (
        lambda: learner.tickets.settle(claimed),
        lambda: learner.tickets.issue([makers.ticket("train-000000002")]),
        lambda: learner.tickets.reject(claimed[0], "x"),
        lambda: learner.tickets.withdraw(["train-000000001"]),
        learner.tickets.confirm_epoch,
    ):
        with pytest.raises(FencedError):
            act()
    successor.tickets.confirm_epoch()
    assert successor.tickets.pending() == claimed
    assert [e.uid for e in successor.tickets.claim(10, 1)] == ["train-000000001"]
    successor.tickets.settle(claimed)
    assert len(successor.tickets.pending()) == 1


def test_withdrawn_tickets_are_gone_and_a_late_push_is_dropped(learner: Broker) -> None:
    learner.tickets.issue([makers.ticket("eval-a-0"), makers.ticket("eval-a-1")])
    leased = take(learner).ticket.uid
    learner.tickets.withdraw(["eval-a-0", "eval-a-1"])
    assert learner.leases.lease(V) is None
    assert learner.leases.push(makers.group(leased)) is PushResult.DUPLICATE
    assert learner.tickets.open_tickets() == set()


def test_members_come_and_go(client: Clients) -> None:
    broker = client()
    member = Member(name="generator-0", role="generator", applied="a:3", busy_s=1.5, tokens=7)
    broker.registry.heartbeat(member, 60)
    broker.registry.heartbeat(
        Member(name="scorer-0", role="scorer", address="http://127.0.0.1:1"), 0.1
    )
    assert [m.name for m in broker.registry.members()] == ["generator-0", "scorer-0"]
    assert broker.registry.members()[0] == member
    time.sleep(0.2)
    assert [m.name for m in broker.registry.members()] == ["generator-0"]
    broker.registry.leave("generator-0")
    assert broker.registry.members() == []


def test_messages_are_read_in_order_from_a_position(client: Clients) -> None:
    broker, other = client(), client()
    broker.mailbox.send("control", b"early")
    position = broker.mailbox.tail("control")
    assert broker.mailbox.receive("control", position, 0) == []
    threading.Timer(
        0.2, lambda: [other.mailbox.send("control", m) for m in (b"one", b"two")]
    ).start()
    received: list[bytes] = []
    deadline = time.monotonic() + 5
    while len(received) < 2 and time.monotonic() < deadline:
        for newest, message in broker.mailbox.receive("control", position, 1):
            position = newest
            received.append(message)
    assert received == [b"one", b"two"]
    assert broker.mailbox.receive("replies", "0", 0) == []


def test_a_stop_is_seen_by_its_audience_and_can_be_taken_back(client: Clients) -> None:
    broker, other = client(), client()
    assert other.registry.stop_reason("learner") == ""
    broker.registry.request_stop("learner", "enough")
    assert other.registry.stop_reason("learner") == "enough"
    assert (
        other.registry.stop_reason("workers") == ""
    )  # the learner goes first: it needs the others to finish
    broker.registry.request_stop("learner", "")
    assert other.registry.stop_reason("learner") == ""


def test_claim_waits_for_the_first_group(learner: Broker, client: Clients) -> None:
    learner.tickets.issue([makers.ticket()])
    generator = client()
    pushing = threading.Timer(0.2, lambda: produce(generator, 1))
    pushing.start()
    started = time.monotonic()
    assert len(learner.tickets.claim(5, 5)) == 1
    assert 0.1 < time.monotonic() - started < 3
    pushing.join()


def test_many_generators_never_share_a_ticket(learner: Broker, client: Clients) -> None:
    learner.tickets.issue([makers.ticket(f"train-{i:09d}") for i in range(60)])
    taken: list[str] = []

    def work() -> None:
        mine = client()
        while (lease := mine.leases.lease(V)) is not None:
            taken.append(lease.ticket.uid)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # a slow machine may let a lease of 0.4 s expire: then an attempt is repeated, but none is
    # missing
    assert len(set(taken)) == 60


def test_a_queued_ticket_that_was_withdrawn_and_issued_again_can_be_made_again(
    learner: Broker,
) -> None:
    learner.tickets.issue([makers.ticket()])
    uid = produce(learner, 1)[0]
    learner.tickets.withdraw([uid])  # a life that did not know of it
    assert learner.tickets.issue([makers.ticket(uid)]) == ["open"]
    (entry,) = learner.tickets.claim(1, 1)
    learner.tickets.reject(entry, "bad frame")
    assert take(learner).ticket.uid == uid


def test_a_group_that_could_never_fit_is_refused_at_once(client: Clients) -> None:
    if isinstance(client(), MemoryBroker):
        pytest.skip("the server's concern")
    broker = client(max_bytes=1000)
    with pytest.raises(ValueError, match=r"more than half of broker.max_bytes = 1000"):
        broker.leases.push(makers.big_group("train-000000000", nbytes=4000))
