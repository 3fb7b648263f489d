"""What follows from what has happened to a role, to the broker, or to the run: tables to be read.

Pure: nothing here waits, starts or ends anything. `sppo.launch.supervisor` does what is said, and
`sppo.launch.restarts` says when a restart is of no use.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

STOP_TIMEOUT_S = 120.0
"""For which a learner that is to save may stand still."""
BROKER_SILENCE_S = 10.0
"""After so long without an answer a broker that lives counts as hung."""


class What(Enum):
    """What has happened to a role."""

    RETURNED = auto()
    """Its process ended as one whose work is done."""
    RAISED = auto()
    """Its process ended with an error, or was killed."""
    HUNG = auto()
    """Its process is there, but gives no sign of life or of progress."""
    DUE = auto()
    """The time has come to start it again."""
    NO_ROOM = auto()
    """It was to be started, and no machine has room for it."""


class Who(Enum):
    """What the run expects of a role."""

    LEARNER = auto()
    WORKER = auto()
    """A generator or scorer that is to work until the run ends."""
    NEWCOMER = auto()
    """One that was asked for by `sppo-cli scale` and has not come to work yet."""
    LEAVER = auto()
    """One that was asked to leave."""


class Do(Enum):
    """What to do about it."""

    GO_ON = auto()
    FINISH = auto()
    """The run is over: the outcome is what the learner returned."""
    FAIL = auto()
    """The run is over: raise the error."""
    RESTART = auto()
    """Start it again, after a while and if that is of use; else FAIL."""
    START = auto()
    """Start it now."""
    WAIT = auto()
    """Try the same again later."""
    DROP = auto()
    """Do not start it any more."""
    END = auto()
    """Kill its process; what follows is what follows for one that RAISED."""
    LET_GO = auto()
    """It has left: take it out of the plan."""
    GIVE_UP = auto()
    """Go on with one fewer, and say why."""
    NOTE = auto()
    """Say so, and go on without it."""
    SAVE = auto()
    """Ask the learner to save a checkpoint and end."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None stands for any."""

    what: What
    who: Who | None
    stopping: bool | None
    do: Do


# fmt: off
ROLES = (
    # to a role happens   that is          while stopping
    Row(What.RETURNED,    Who.LEARNER,     None,          Do.FINISH),
    Row(What.RAISED,      Who.LEARNER,     False,         Do.RESTART),
    Row(What.RAISED,      Who.LEARNER,     True,          Do.FAIL),
    Row(What.RETURNED,    Who.LEAVER,      None,          Do.LET_GO),
    Row(What.RAISED,      Who.LEAVER,      None,          Do.LET_GO),
    Row(What.RETURNED,    Who.NEWCOMER,    None,          Do.GIVE_UP),
    Row(What.RAISED,      Who.NEWCOMER,    None,          Do.GIVE_UP),
    Row(What.RETURNED,    Who.WORKER,      False,         Do.RESTART),
    Row(What.RAISED,      Who.WORKER,      False,         Do.RESTART),
    # the learner is saving: it needs nobody for that
    Row(What.RETURNED,    Who.WORKER,      True,          Do.NOTE),
    Row(What.RAISED,      Who.WORKER,      True,          Do.NOTE),
    # whoever leaves stops its heartbeat first
    Row(What.HUNG,        Who.LEAVER,      None,          Do.GO_ON),
    Row(What.HUNG,        None,            True,          Do.GO_ON),
    Row(What.HUNG,        None,            False,         Do.END),
    # a stop needs the learner, to save
    Row(What.DUE,         Who.LEARNER,     None,          Do.START),
    Row(What.DUE,         None,            False,         Do.START),
    Row(What.DUE,         None,            True,          Do.DROP),
    # its machine is gone, and no other has room
    Row(What.NO_ROOM,     Who.LEARNER,     None,          Do.FAIL),
    Row(What.NO_ROOM,     None,            None,          Do.WAIT),
)
# fmt: on


def role(what: What, who: Who, *, stopping: bool) -> Do:
    """The first row that fits."""
    for row in ROLES:
        if row.what is what and row.who in (None, who) and row.stopping in (None, stopping):
            return row.do
    raise AssertionError(f"no row for {what}, {who}")


def broker(*, answers: bool, alive: bool, silent_s: float) -> tuple[Do, str]:
    """What to do about the embedded broker, and why if that is a restart: at once, as everyone
    waits for it.
    """
    if answers:
        return Do.GO_ON, ""
    if not alive:
        return Do.RESTART, "died"
    if silent_s > BROKER_SILENCE_S:
        return Do.RESTART, f"gave no answer for {BROKER_SILENCE_S:.0f} s"
    return Do.WAIT, ""


def broker_lost(*, embedded: bool) -> Do:
    """What to do about an error in work with the broker: an embedded one is found out and mended in
    the next round, a user's own was waited for already.
    """
    return Do.WAIT if embedded else Do.FAIL


def stop(requests: int, still_s: float) -> tuple[Do, str]:
    """What to do about one request to stop or more, since the first of which the learner has got on
    with nothing for so long, and why if that is the end.
    """
    if requests > 1:
        return Do.FAIL, "was not waited for"
    if still_s > STOP_TIMEOUT_S:
        return Do.FAIL, f"got on with nothing for {STOP_TIMEOUT_S:.0f} s"
    return Do.SAVE, ""
