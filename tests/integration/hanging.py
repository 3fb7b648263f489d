"""One of two ranks that meet again and again, for tests: `python -m tests.integration.hanging`

    lead                 rank 0, which starts the other, and waits long for one that stands still
    RANK PORT [hangs]    one that was started by hand; it may hang without being stopped

Silence shows after 2 s, standing still after 1 s.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from sppo.errors import RoleDiedError
from sppo.learner import by_hand, children, ranks, signs
from sppo.learner.place import Place
from sppo.learner.ranks import Team

DEADLINE_S = 1.0
FOLLOW = "follow"


def work(team: Team, *, hangs: bool = False) -> None:
    team.where.at("training after step 7")
    for meeting in range(10**9):
        team.add(torch.ones(1))
        if meeting == 20:
            os.write(1, f"{os.getpid()}\n".encode())  # at once: another rank writes there too
            if hangs:
                time.sleep(60)
        time.sleep(0.05)


def lead() -> None:
    again = Path(tempfile.mkdtemp()) / "rank"  # what is started in Python's place
    again.write_text(f"#!/bin/sh\nexec {sys.executable} -m tests.integration.hanging {FOLLOW}\n")
    again.chmod(0o755)
    children.sys.executable = str(again)  # type: ignore[attr-defined]
    team = ranks.lead(2, "cpu", {}, here=True, owner=str(again), deadline_s=60.0)
    try:
        work(team)
    except RoleDiedError:
        print(team.lost(), file=sys.stderr, flush=True)
        os._exit(RoleDiedError.exit_code)


def main() -> None:
    signs.SIGN_S, signs.SILENT_S = 0.2, 2.0
    by_hand.DEATH_NOTICE_S = 0.5
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["lead"]:
            lead()
        case ["follow"]:
            work(ranks.follow()[0])
        case [rank, port, *hangs]:
            place = Place(
                rank=int(rank), size=2, local=0, address="127.0.0.1", port=int(port)
            )  # fmt: skip
            work(by_hand.meet(place, "cpu", DEADLINE_S), hangs=bool(hangs))


if __name__ == "__main__":
    main()
