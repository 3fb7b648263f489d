"""`sppo-cli` begins here: how this process reads files and orders sets is settled before anything
is imported, as it may begin once more for that.
"""

from __future__ import annotations

import locale
import os
import sys


def begin() -> None:
    """Entry point of `sppo-cli`."""
    _begin_alike()
    from . import commands

    commands.run()


def _begin_alike() -> None:
    """In this process and in those that it starts files are UTF-8 whatever the locale says, and
    sets of texts have one order: some tasks draw their questions from such a set, and every role
    must draw the same.
    """
    utf8 = sys.flags.utf8_mode or locale.getpreferredencoding(False).lower() in ("utf-8", "utf8")
    if not utf8 or os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        if not utf8:
            os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
