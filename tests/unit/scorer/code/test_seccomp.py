"""The filter of system calls, run by a small machine; the kernel runs it in
tests/integration/test_code.py.
"""

from __future__ import annotations

import errno
import struct

import pytest

from sppo.scorer.code import seccomp

ALLOW, REFUSE, KILL, UNKNOWN = 0x7FFF0000, 0x50000 | errno.EPERM, 0x80000000, 0x50000 | errno.ENOSYS
PID = 4711


def verdict(number: int, *arguments: int, architecture: int = 0xC000003E) -> int:
    """What the filter says of a call on x86_64."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *padded)
    code = [struct.unpack("=HBBI", p) for p in _pieces(seccomp.program(PID))]
    at, register = 0, 0
    while True:
        kind, yes, no, value = code[at]
        at += 1
        if kind == 0x06:
            return int(value)
        if kind == 0x20:
            register = struct.unpack_from("=I", data, value)[0]
            continue
        true = {0x15: register == value, 0x45: register & value, 0x35: register >= value}[kind]
        at += yes if true else no


def _pieces(code: bytes) -> list[bytes]:
    return [code[i : i + 8] for i in range(0, len(code), 8)]


@pytest.fixture(autouse=True)
def x86_64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def test_each_refused_call_is_refused_and_others_are_not() -> None:
    for number, _ in seccomp.REFUSED.values():
        if number >= 0:
            assert verdict(number) == REFUSE
    for number in (0, 1, 9, 202, 231, 257, 318):  # read, write, mmap, futex, exit_group, openat, …
        assert verdict(number) == ALLOW


def test_threads_are_made_and_processes_are_not() -> None:
    assert verdict(56, 0x003D0F00) == ALLOW  # what pthread_create asks for
    assert verdict(56, 17) == REFUSE
    assert verdict(435) == UNKNOWN  # clone3, whose flags cannot be seen: clone is asked for then


def test_only_ones_own_threads_are_signalled() -> None:
    assert verdict(234, PID, PID, 6) == ALLOW
    assert verdict(234, 1, 1, 9) == REFUSE
    assert verdict(302, 0) == verdict(302, PID) == ALLOW
    assert verdict(302, 1) == REFUSE


def test_arguments_that_reach_out_are_refused() -> None:
    assert verdict(157, 1, 0) == verdict(157, 4, 1) == REFUSE  # prctl
    assert verdict(157, 15) == ALLOW
    assert verdict(72, 3, 8) == verdict(72, 3, 1024) == REFUSE  # fcntl
    assert verdict(72, 3, 1) == ALLOW
    assert verdict(16, 0, 0x5412) == REFUSE  # ioctl
    assert verdict(16, 0, 0x5401) == ALLOW


def test_calls_of_another_architecture_kill() -> None:
    assert verdict(1, architecture=0x40000003) == KILL
    assert verdict(0x40000001) == KILL


def test_the_filter_is_made_for_arm_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert len(seccomp.program(PID)) % 8 == 0
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert not seccomp.available()
