"""What of the file system a process may see: the standard library and what Python needs to load
it, to be read. Nothing may be written. Standard library only: it is loaded in the sandbox.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
_MOST_FS_BITS = 16
_NET = 3
_SCOPES = 3
READABLE = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo",
            "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/zero")  # fmt: skip


def version() -> int:
    """Of the kernel's interface; 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))))


def restrict() -> None:
    """Leave this process what `READABLE` names and the standard library; needs no_new_privs.

    Signals and abstract sockets reach no other process where the kernel's interface is of version 6
    or later, and TCP nobody from version 4 on. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    abi = version()
    handled = (1 << _FS_BITS.get(abi, _MOST_FS_BITS)) - 1
    attributes = (ctypes.c_uint64 * 3)(handled, _NET if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _checked(
        libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint(0)), "ruleset"
    )
    library = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    for path in {*READABLE, *library, os.path.join(sys.base_prefix, "lib")}:
        _allow(libc, ruleset, path, _READ_FILE | _READ_DIR)
    _allow(libc, ruleset, "/dev/null", _READ_FILE | _WRITE_FILE)
    _checked(libc.syscall(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0)), "restrict")
    os.close(ruleset)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not every system has each of them
    if not os.path.isdir(path):
        access &= ~_READ_DIR
    rule = _Beneath(access, descriptor)
    added = libc.syscall(
        _ADD, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule),
        ctypes.c_uint(0),
    )  # fmt: skip
    _checked(added, path)
    os.close(descriptor)


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock, {what}: {os.strerror(error)}")
    return result
