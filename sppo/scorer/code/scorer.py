"""The `code` scorer: 1 for a completion whose program passes the row's tests."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sppo.scorer.code import cases, sandbox
from sppo.scorer.code.cases import Cases
from sppo.scorer.code.extract import program_of
from sppo.types import ScoreRequest

log = logging.getLogger(__name__)


class Code:
    """Rewards for programs; docs/scorers/code.md says how they are run and what stops them.

    code = Code(tests="test_list")
    code.setup()
    code.score(request)["rewards"]
    """

    def __init__(
        self,
        *,
        tests: str = cases.COLUMN,
        share: bool = False,
        timeout_s: float = 6.0,
        memory_mib: int = 1024,
        unsafe: bool = False,
    ) -> None:
        """`tests` is the column with the tests; `share` pays the share of tests that pass instead
        of 1 for all; a program has `timeout_s` for all its tests, or for each input, and
        `memory_mib`; `unsafe` runs it also where it cannot be kept from files and the network.

        Raises ValueError.
        """
        if not 0 < timeout_s <= 600:
            raise ValueError(
                f"scorer.options.timeout_s = {timeout_s:g}: expected seconds above 0, at most 600"
            )
        if memory_mib < 64:
            raise ValueError(
                f"scorer.options.memory_mib = {memory_mib}: an interpreter needs at least 64"
            )
        self._column = tests
        self._share = share
        self._unsafe = unsafe
        self._sandbox = sandbox.Sandbox(timeout_s=timeout_s, memory=memory_mib << 20)

    def setup(self) -> None:
        """Try what a program can reach. Raises RuntimeError where that is more than itself, unless
        `unsafe`, and where none can be run.
        """
        reached = self._sandbox.reach()
        if reached and not self._unsafe:
            lacking = [name for name, there in sandbox.protections().items() if not there]
            raise RuntimeError(
                f"scorer.name = 'code': programs that a model wrote would reach "
                f"{' and '.join(reached)} here, as this kernel gives no "
                f"{' and no '.join(lacking) or 'Landlock'}; run the scorer elsewhere, or set "
                f"scorer.options.unsafe = true"
            )
        if reached:
            log.warning("scorer.options.unsafe: programs reach %s", " and ".join(reached))

    def score(self, request: ScoreRequest) -> dict[str, Any]:
        """Rewards [K] in [0, 1]; details say how many tests passed and why a program was ended.

        Raises ValueError where the row holds no tests.
        """
        tests = cases.read(request.data, self._column)
        details = [self._detail(tests, request.data, text) for text in request.completions]
        shares = [detail["passed"] / tests.count for detail in details]
        return {
            "rewards": shares if self._share else [float(share == 1) for share in shares],
            "details": details,
        }

    def _detail(self, tests: Cases, data: Mapping[str, Any], text: str) -> dict[str, Any]:
        program = _whole(program_of(text), tests, data)
        run = self._streams if tests.streams else self._tests
        passed, why = run(tests, program)
        detail = {"passed": passed, "of": tests.count}
        return {**detail, "why": why} if why else detail

    def _tests(self, tests: Cases, program: str) -> tuple[int, str]:
        order = {
            "prelude": tests.prelude,
            "tests": tests.tests,
            "entry": tests.entry,
            "calls": tests.calls,
        }
        outcome = self._sandbox.tests(program, order)
        return outcome.output.split().count(b"1"), outcome.why

    def _streams(self, tests: Cases, program: str) -> tuple[int, str]:
        """Each input in a process of its own. After one that is late no other is tried, nor after
        one that fails where all must pass.
        """
        passed, why = 0, ""
        for stdin, expected in tests.streams:
            outcome = self._sandbox.program(program, stdin)
            right = outcome.code == 0 and _lines(outcome.output.decode(errors="replace")) == _lines(
                expected
            )
            passed += right
            why = why or outcome.why
            if outcome.why or not (right or self._share):
                break
        return passed, why


def _lines(text: str) -> list[str]:
    """Without the spaces at the ends of lines, nor empty lines at the end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _whole(program: str, tests: Cases, data: Mapping[str, Any]) -> str:
    """HumanEval: a completion that goes on where its prompt ends is put behind it."""
    prompt = data.get("prompt")
    head = f"def {tests.entry}("
    if tests.entry and head not in program and isinstance(prompt, str) and head in prompt:
        return prompt + program
    return program
