"""Work in another process: its answer, errors and words come back, what it imported does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sppo.launch import aside


def run(script: str, code: int = 0) -> list[str]:
    """Lines that a process prints, as this one has threads and libraries of other tests."""
    done = subprocess.run(
        [sys.executable, "-c", "from sppo.launch import aside\n" + textwrap.dedent(script)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return (done.stdout + done.stderr).splitlines()


def test_the_answer_comes_back_and_what_was_imported_does_not() -> None:
    script = """
    import os, sys
    def work():
        import wave
        print("working", flush=True)
        return {"a": (1, 2), "pid": os.getpid()}
    found = aside.call(work)
    print(found["a"], found["pid"] != os.getpid(), "wave" in sys.modules)
    """
    assert run(script) == ["working", "(1, 2) True False"]


def test_errors_keep_their_kind_words_and_traceback() -> None:
    script = """
    import traceback
    from sppo.errors import ConfigError, BrokerError
    class Strange(Exception):
        def __init__(self, a, b): super().__init__(f"{a} and {b}")
    def fails(error):
        def work(): raise error
        try:
            aside.call(work)
        except Exception as told:
            code = getattr(told, "exit_code", "")
            print(type(told).__name__, isinstance(told, OSError), code, told)
            assert "in work" in "".join(traceback.format_exception(told))
    fails(ConfigError("a = 1: mend it"))
    fails(BrokerError("gone"))
    fails(OSError(28, "No space left on device", "/x"))
    fails(KeyError("a"))
    fails(Strange(1, 2))
    """
    assert run(script) == [
        "ConfigError False 2 a = 1: mend it",
        "BrokerError False 4 gone",
        "OSError True  [Errno 28] No space left on device: '/x'",
        "KeyError False  'a'",
        "Strange False  1 and 2",
    ]


def test_a_process_that_is_ended_is_said_to_have_been() -> None:
    script = """
    import os, signal
    from sppo.errors import SppoError
    for work in (lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3)):
        try:
            aside.call(work)
        except SppoError as error:
            print(error)
    """
    killed, ended = run(script)
    assert "ended with SIGKILL" in killed
    assert "ended with exit code 3" in ended


def test_an_interrupt_ends_the_work_and_its_cleaning_up_is_waited_for(tmp_path: Path) -> None:
    script = f"""
    import os, signal, sys, threading, time
    def work():
        try:
            os.killpg(0, signal.SIGINT)  # as Ctrl-C does
            time.sleep(60)
        finally:
            open({str(tmp_path / "cleaned")!r}, "w").close()
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        aside.call(work)
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < 30)
    """
    assert run(script) == ["interrupted True"]
    assert (tmp_path / "cleaned").exists()


def test_with_the_libraries_or_threads_here_it_is_done_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys.modules[__name__])
    here: list[int] = []
    aside.call(lambda: here.append(1))
    assert here == [1]
