"""A user's function in real processes of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from sppo.errors import ConfigError, ScorerBusy, ScorerError, ScorerRefused, ScorerSpent
from sppo.scorer import pool, worker
from sppo.scorer.pool import Pool
from sppo.types import ScoreRequest

HERE = "tests.unit.scorer.functions"


def request(*completions: str, **data: Any) -> ScoreRequest:
    return ScoreRequest(
        uid="train-7", question="q", completions=completions, data={"answer": "a", **data}
    )


def score(
    name: str,
    *requests: ScoreRequest,
    timeout_s: float = 5.0,
    then: Callable[[Pool], Coroutine[Any, Any, Any]] | None = None,
    **options: Any,
) -> list[Any]:
    """The replies, or the errors, of requests that are made at once."""

    async def run() -> list[Any]:
        used = Pool(f"{HERE}:{name}", timeout_s=timeout_s, **options)
        try:
            found = await asyncio.gather(*(used.score(r) for r in requests), return_exceptions=True)
            if then is not None:
                await then(used)
            return list(found)
        finally:
            used.close()

    found = asyncio.run(run())
    assert not [p for p in psutil.Process().children() if worker.__file__ in p.cmdline()], (
        "a process was left behind"
    )
    return found


@pytest.mark.parametrize("name", ["by_length", "awaited", "decorated", "judge"])
def test_sync_and_async_functions_objects_and_decorated_ones_are_called(name: str) -> None:
    assert score(name, request("a", "bcd"), request("")) == [[1.0, 3.0], [0.0]]


def test_a_function_runs_in_the_main_thread_where_signals_work() -> None:
    assert score("alarmed", request("a")) == [[1.0]]


def test_replies_of_any_kind_of_numbers_become_floats() -> None:
    assert score("verdicts", request("a", "b")) == [[1.0, 0.0]]
    assert score("rock_paper_scissors", request("rock", "paper")) == [[[0.5, 0.0], [1.0, 0.5]]]


@pytest.mark.parametrize(
    ("name", "words", "kind"),
    [
        ("refuses", r"^RuntimeError: out of opinions \(functions.py, line \d+\)$", ScorerError),
        ("misses_a_column", r"^KeyError: 'solution' \(functions.py, line \d+\)$", ScorerError),
        ("misspelt", r"^NameError: .*scroe", ScorerRefused),  # no other completion would mend it
        ("texts", r"\[0\] is '1.0', which is not a number", ScorerError),
        ("too_large", "beyond what a float holds", ScorerError),
    ],
)
def test_an_error_is_told_in_one_line_with_its_place(
    name: str, words: str, kind: type[Exception], capfd: pytest.CaptureFixture[str]
) -> None:
    (error,) = score(name, request("a"))
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error
    assert "Traceback" in capfd.readouterr().err  # the role's log has the rest


@pytest.mark.parametrize(
    ("name", "words"),
    [("nope", "AttributeError"), ("HERE", "AttributeError"), ("loaded_at", "is no function")],
)
def test_what_cannot_be_imported_is_a_mistake_in_the_configuration(name: str, words: str) -> None:
    first, second = score(name, request("a"), request("b"))
    assert type(first) is type(second) is ConfigError
    assert f"scorer.name = '{HERE}:{name}'" in str(first)
    assert words in str(first)


def test_a_process_that_dies_of_a_group_is_replaced_and_the_group_named() -> None:
    texts = ["os._exit(3)", "os.kill(os.getpid(), 11)", "pass", "sys.exit('enough')"]
    died, killed, fine, left = score("runs_code", *map(request, texts))
    assert str(died) == "its process ended with exit code 3 while it scored this group"
    assert str(killed) == "its process was killed by SIGSEGV while it scored this group"
    assert fine == [1.0]
    assert "SystemExit: enough" in str(left)


def test_a_call_that_never_ends_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    # Given code that starts processes, one in a session of its own, and loops
    pids = tmp_path / "pids"
    hostile = (
        "p = [subprocess.Popen(['sleep', '300'], start_new_session=bool(i)).pid for i in "
        "range(2)]\n"
        f"c = os.fork()\nif c == 0: time.sleep(300)\nopen({str(pids)!r}, 'w').write(' "
        f"'.join(map(str, [*p, c])))\n"
        "while True: pass"
    )
    # When it is given a warm process, and another group waits
    started = time.monotonic()

    async def loop(used: Pool) -> None:
        with pytest.raises(ScorerError, match=r"no answer within scorer\.timeout_s = 1$"):
            await used.score(request(hostile))
        assert await used.score(request("pass")) == [1.0]

    score("runs_code", request("pass"), timeout_s=1.0, then=loop)
    # Then it has ended in time, and nothing of it runs
    assert time.monotonic() - started < 8
    for pid in map(int, pids.read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_fork_that_goes_on_in_our_code_ends_there() -> None:
    assert score("runs_code", request("os.fork()"), request("pass")) == [[1.0], [1.0]]


def test_loading_at_the_first_call_does_not_count_against_the_group() -> None:
    async def loop(used: Pool) -> None:
        for _ in range(2):  # a new process may load again, and is found to loop all the same
            with pytest.raises(ScorerError, match=r"scorer\.timeout_s = "):
                await used.score(request("loop"))

    started = time.monotonic()
    assert score("loads_first", request("a"), timeout_s=0.5, then=loop) == [[1.0]]
    assert time.monotonic() - started < 10


def test_a_first_call_that_hangs_is_found_by_the_first_call_of_another_process(
    tmp_path: Path,
) -> None:
    started = time.monotonic()
    data = {"mark": str(tmp_path / "mark")}
    replies = score("loops_once", request("a", **data), request("b", **data), timeout_s=0.5)
    assert [type(r) for r in replies] == [ScorerError, list]
    assert time.monotonic() - started < 8


def test_processes_are_added_while_calls_wait_and_groups_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "MOST", 4)
    replies = score("waits", *[request("a")] * 40)
    assert len({r[0] for r in replies}) == 4


def test_a_function_that_holds_a_model_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MEMORY", 1 << 20)
    replies = score("waits", *[request("a")] * 8)
    assert len({r[0] for r in replies}) == 1


def test_groups_are_awaited_beside_each_other_and_a_late_one_alone_is_given_up() -> None:
    started = time.monotonic()
    many = [request("a")] * 40 + [request("never")]

    async def again(used: Pool) -> None:  # the process is the same
        assert await used.score(request("bc")) == [2.0]

    first, *rest, late = score("awaited", request("a"), *many, timeout_s=1.0, then=again)
    assert [first, *rest] == [[1.0]] * 41
    assert "no answer within scorer.timeout_s = 1" in str(late)
    assert time.monotonic() - started < 8


def test_an_async_function_that_blocks_costs_nobody_else_the_deadline() -> None:
    many = [request("a")] * 12 + [request("never")] + [request("bc")] * 3
    replies = score("blocks", *many, timeout_s=0.8)
    assert replies[:12] == [[1.0]] * 12
    assert isinstance(replies[12], ScorerError)
    assert replies[13:] == [[2.0]] * 3


def test_of_groups_in_hand_when_a_process_dies_the_guilty_one_alone_is_given_up() -> None:
    replies = score("awaited", request("a"), request("die"), request("bc"))
    assert replies[0] == [1.0]
    assert str(replies[1]) == "its process ended with exit code 5 while it scored this group"
    assert replies[2] == [2.0]


def test_a_turn_that_does_not_come_in_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MEMORY", 1 << 20)

    async def full(used: Pool) -> None:
        slow = asyncio.create_task(used.score(request("time.sleep(1)")))
        await asyncio.sleep(0.05)
        with pytest.raises(ScorerBusy, match=r"no process was free for 0\.2 s"):
            await used.score(request("pass"), turn_s=0.2)
        assert await slow == [1.0]

    score("runs_code", request("pass"), then=full)


def test_a_cancelled_call_frees_its_process() -> None:
    async def cancel(used: Pool) -> None:
        slow = asyncio.create_task(used.score(request("time.sleep(300)")))
        await asyncio.sleep(0.2)
        slow.cancel()
        assert await used.score(request("pass")) == [1.0]

    score("runs_code", request("pass"), then=cancel)


ROLE = f"""
import asyncio, os, sys
from sppo.scorer.pool import Pool
from sppo.types import ScoreRequest

async def role():
    looping = "print(os.getpid(), flush=True)\\nwhile True: pass"
    group = ScoreRequest(uid="u", question="", completions=[looping], data={{}})
    await Pool("{HERE}:runs_code", timeout_s=60).score(group)

asyncio.run(role())
"""


def test_the_processes_end_with_the_one_that_started_them() -> None:
    # Given a role whose scorer loops
    role = subprocess.Popen([sys.executable, "-c", ROLE], stdout=subprocess.PIPE, text=True)
    assert role.stdout is not None
    pid = int(role.stdout.readline())
    # When it is killed
    role.kill()
    role.wait()
    # Then so is the scorer
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_calls_beside_one_that_loads_a_model_lose_no_attempt() -> None:
    # Given a model that takes three deadlines to load, groups that wait for it beside each other
    # and one that fails before
    many = [request("a"), request("bad"), *[request("a", i=i) for i in range(5)], request("a", "b")]
    # When all are scored at once
    replies = score("loads_once_for_all", *many, timeout_s=0.5)
    # Then only that one fails
    assert isinstance(replies.pop(1), ScorerError)
    assert replies == [[1.0]] * 6 + [[1.0, 1.0]]


def test_a_request_is_seen_whole_by_a_function_of_one_parameter() -> None:
    asked = ScoreRequest(
        uid="train-7",
        question="q",
        completions=["a", "b"],
        data={},
        messages=(("system", "be brief"), ("user", "q")),
        finish_reasons=["stop", "length"],
        lengths=[3, 9],
        versions=["e:1", "e:1"],
    )
    assert score("of_everything", asked) == [[3.0, 0.0]]


def test_a_batch_that_fails_costs_the_group_that_fails_alone() -> None:
    replies = score("Batched", request("a"), request("bad"), request("b"), request("c"))
    assert isinstance(replies.pop(1), ScorerError)
    assert replies == [[1.0]] * 3  # each by itself


def test_an_async_scorer_that_only_fails_has_its_time_to_load_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LOAD_S", 0.3)

    async def later(used: Pool) -> None:
        (process,) = used._processes
        assert process.answered == 0
        assert used._limit_s(process) == pytest.approx(0.5)
        process.first_at = time.monotonic() - 1
        assert used._limit_s(process) == 0.2

    (error,) = score("never_works", request("a"), timeout_s=0.2, then=later)
    assert isinstance(error, ScorerError)


def test_a_scorer_that_keeps_time_is_late_only_once_its_process_has_hung() -> None:
    async def hang(used: Pool) -> None:
        with pytest.raises(ScorerError, match=r"no answer within scorer\.timeout_s = 0\.5"):
            await used.score(request("block"))

    assert score("KeepsTime", request("a"), timeout_s=0.5, then=hang) == [[1.0]]


def test_errors_of_ours_keep_their_kind_and_words() -> None:
    spent, refused = score("spent", request("spent"), request("x"))
    assert (type(spent), str(spent)) == (ScorerSpent, "words of ours")
    assert (type(refused), str(refused)) == (ScorerRefused, "words of ours")


def test_what_a_scorer_counts_outlives_its_processes() -> None:
    async def die_and_go_on(used: Pool) -> None:
        assert used.counters() == {"calls": 2}
        with pytest.raises(ScorerError, match="ended with exit code 1"):
            await used.score(request("die"))
        await used.score(request("c"))
        assert used.counters() == {"calls": 3}

    score("Counts", request("a"), request("b"), then=die_and_go_on)
