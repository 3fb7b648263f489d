"""A filter of system calls, as a program of classic BPF. Standard library only: it is loaded in the
sandbox.

What is refused gets EPERM and the program goes on. The list names what reaches beyond one's own
process or what the filter for files (`sppo.scorer.code.landlock`) does not see.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _BITS, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ARGUMENTS = 16
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
_PR_SET_SECCOMP, _FILTER = 22, 2

# name: number on x86_64, number on aarch64 (-1: not there)
REFUSED = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206),
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    "setsid": (112, 157), "setpgid": (109, 154), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "flock": (73, 32), "sync": (162, 81),
    "syncfs": (306, 267), "fallocate": (285, 47), "memfd_create": (319, 279),
    "truncate": (76, 45), "shmctl": (31, 195), "semctl": (66, 191), "msgctl": (71, 187),
    "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
    "mount_setattr": (442, 442), "mknod": (133, -1), "mknodat": (259, 33),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_setup": (206, 0),
    "inotify_init1": (294, 26), "inotify_init": (253, -1), "fanotify_init": (300, 262),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224), "acct": (163, 89),
    "quotactl": (179, 60), "syslog": (103, 116), "vhangup": (153, 58), "personality": (135, 92),
    "setuid": (105, 146), "setresuid": (117, 147), "setgid": (106, 144), "setresgid": (119, 149),
    "setreuid": (113, 145), "setregid": (114, 143), "setgroups": (116, 159), "capset": (126, 91),
}  # fmt: skip
_CLONE, _CLONE3, _TGKILL = (56, 220), (435, 435), (234, 131)
_PRCTL, _FCNTL, _IOCTL, _PRLIMIT = (157, 167), (72, 25), (16, 29), (302, 261)
_REFUSED_ARGUMENTS = (
    (_PRCTL, 0, (1, 4, 22)),  # PDEATHSIG, DUMPABLE, SECCOMP
    (_FCNTL, 1, (8, 10, 15, 1024)),  # SETOWN, SETSIG, SETOWN_EX, SETLEASE
    (_IOCTL, 1, (0x8901, 0x8902, 0x5412, 0x541C)),  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
)


def available() -> bool:
    """Whether this machine's calls are known and its kernel filters."""
    return (
        platform.machine() in _ARCHITECTURES
        and ctypes.sizeof(ctypes.c_void_p) == 8
        and os.path.exists("/proc/sys/kernel/seccomp")
    )


def _code(kind: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", kind, yes, no, value)


def program(pid: int) -> bytes:
    """The filter of a process: threads of its own may be made and signalled, others not."""
    architecture, column = _ARCHITECTURES[platform.machine()]
    refuse = _code(_RETURN, _ERRNO | errno.EPERM)
    number = _code(_LOAD, 0)
    parts = [_code(_LOAD, 4), _code(_EQUAL, architecture, 1, 0), _code(_RETURN, _KILL), number]
    if column == 0:
        parts += [_code(_AT_LEAST, _X32, 0, 1), _code(_RETURN, _KILL)]
    for numbers in REFUSED.values():
        if numbers[column] >= 0:
            parts += [_code(_EQUAL, numbers[column], 0, 1), refuse]
    parts += [_code(_EQUAL, _CLONE3[column], 0, 1), _code(_RETURN, _ERRNO | errno.ENOSYS)]
    argument = _code(_LOAD, _ARGUMENTS)
    parts += [_code(_EQUAL, _CLONE[column], 0, 4), argument,
              _code(_BITS, _CLONE_THREAD, 1, 0), refuse, number]  # fmt: skip
    parts += [_code(_EQUAL, _TGKILL[column], 0, 4), argument,
              _code(_EQUAL, pid, 1, 0), refuse, number]  # fmt: skip
    parts += [_code(_EQUAL, _PRLIMIT[column], 0, 5), argument,
              _code(_EQUAL, 0, 2, 0), _code(_EQUAL, pid, 1, 0), refuse, number]  # fmt: skip
    for numbers, at, values in _REFUSED_ARGUMENTS:
        tests = b"".join(
            _code(_EQUAL, value, len(values) - 1 - i, 0) for i, value in enumerate(values[:-1])
        ) + _code(_EQUAL, values[-1], 0, 1)
        parts += [_code(_EQUAL, numbers[column], 0, len(values) + 3),
                  _code(_LOAD, _ARGUMENTS + 8 * at), tests, refuse, number]  # fmt: skip
    parts.append(_code(_RETURN, _ALLOW))
    return b"".join(parts)


def install() -> None:
    """Filter this process from now on; needs no_new_privs. Raises OSError."""
    code = program(os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    given = Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(given), 0, 0) != 0:
        code_of_error = ctypes.get_errno()
        raise OSError(code_of_error, f"seccomp: {os.strerror(code_of_error)}")
