"""The process of a scorer, spoken to as its parent does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

from sppo.scorer import worker

REQUEST = {"uid": "u", "question": "q", "completions": ["a", "bc"], "data": {}}


def talk(target: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """What the process says to the greeting and to each message."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-P", worker.__file__, str(theirs.fileno()), str(os.getpid())],
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    hello = {"name": target, "target": target, "options": {}, "path": sys.path}
    with ours, ours.makefile("rb") as file:
        found = []
        for message in (hello, *messages):
            worker._send(ours, message)
            size = int.from_bytes(file.read(worker.LENGTH), "big")
            found.append(json.loads(file.read(size)))
    assert process.wait(10) == 0
    return found


def test_it_answers_each_request_of_a_message_until_the_other_side_closes() -> None:
    target = "tests.unit.scorer.functions:Batched"
    ready, answer = talk(target, {"id": 3, "requests": [REQUEST, REQUEST]})
    assert ready == {"ready": True, "concurrent": False, "batch": 4, "closes": False}
    assert answer == {"id": 3, "answers": [{"reply": [2.0, 2.0]}] * 2}


def test_what_cannot_be_imported_is_said_at_once() -> None:
    (said,) = talk("no_such_module:score")
    assert said["where"] == "import"
    assert "ModuleNotFoundError" in said["error"]
