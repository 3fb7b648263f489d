"""Every error that sppo raises on purpose.

    SppoError                  exit code 1
    ├── ConfigError            exit code 2: a setting, an input or a run directory to be mended
    ├── RoleDiedError          exit code 3: a role ended by itself; carries its last log lines
    │   └── RoleFailedError    one raised an error that is none of these: it may do so again
    ├── BrokerError            exit code 4: the broker is gone, refuses us or is full
    │   └── FencedError        another learner has taken over this run
    ├── BadFrame               bytes from the wire that are not a valid frame
    ├── WeightSyncError        exit code 5: a weight sync could not be completed
    │   └── TransferAborted    weights did not all arrive; the engine still runs the old ones
    │       └── WeightsMixed   some were loaded: it is not to sample until a whole transfer came
    ├── ParityError            exit code 6: engine and learner disagree on log-probs
    └── ScorerError            exit code 7: no score for a group; the learner's: for many in a row
        ├── ScorerRefused      the same would happen again: the group's ticket is given up
        ├── ScorerSpent        no group will be scored any more: the run ends, with a checkpoint
        └── ScorerBusy         the scorer has no time for the group now

A message for a user names the setting, the value and the mend. Errors cross process boundaries (Ray
sends them as they are), so each is built from plain positional strings.
"""


class SppoError(Exception):
    """Base of the tree."""

    exit_code = 1


class ConfigError(SppoError):
    """A setting or an input that the user can mend."""

    exit_code = 2


class RoleDiedError(SppoError):
    """A role's process ended although nobody asked it to."""

    exit_code = 3


class RoleFailedError(RoleDiedError):
    """A role's process raised an error that is not one of ours, and was not just killed."""


class BrokerError(SppoError):
    """The broker cannot be reached, refuses the credentials, or is full."""

    exit_code = 4


class FencedError(BrokerError):
    """A newer learner owns this run; this one must stop without writing."""


class BadFrame(SppoError, ValueError):  # noqa: N818 - the field's name for it
    """Bytes that are not a valid frame."""


class WeightSyncError(SppoError):
    """A weight sync could not be completed."""

    exit_code = 5


class TransferAborted(WeightSyncError):  # noqa: N818 - what happened, not a fault of the engine
    """Weights did not arrive whole; none was loaded, so the engine goes on with what it had."""


class WeightsMixed(TransferAborted):
    """A transfer broke off while it was loaded: the engine is well, but holds weights of two
    versions.
    """


class ParityError(SppoError):
    """Engine and learner disagree on the log-probs of the same tokens at the same version."""

    exit_code = 6


class ScorerError(SppoError):
    """A scorer failed for one group, whose ticket is tried again; or, from the learner, for one
    group after another.
    """

    exit_code = 7


class ScorerRefused(ScorerError):  # noqa: N818 - what happened
    """A scorer failed in a way that trying again would not change; the ticket is given up."""


class ScorerSpent(ScorerError):  # noqa: N818 - what happened
    """A scorer will score nothing more, by a limit that was set for it or as its key is refused;
    the run saves a checkpoint and ends.
    """


class ScorerBusy(ScorerError):  # noqa: N818 - what happened
    """A scorer could not begin with the group in time: to be asked again later, no fault of the
    group.
    """
