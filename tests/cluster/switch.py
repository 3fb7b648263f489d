"""A switch between network namespaces: `python -m tests.cluster.switch`, told by standard input.

    plug NAME ADDRESS     join a namespace; its interface is `lan`, its address on 10.97.0.0/24
    unplug NAME           forget one that is gone
    delay SECONDS         for each packet, each way (this kernel may have no netem)
    cut NAME, mend NAME   drop what goes to and comes from one, silently; go on

Each line is answered by `ok`. Packets are copied between TUN devices, late by the delay.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
CLONE_NEWNET = 0x40000000
MTU = 60_000
"""Few large packets: Python moves each."""


def enter(name: str) -> int:
    """Be in this namespace; returns what leads back."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    join(there)
    return own


def join(handle: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(handle)


class Switch:
    def __init__(self) -> None:
        self._ports: dict[str, tuple[int, bytes]] = {}
        self._cut: set[str] = set()
        self._delay_s = 0.0
        self._late: list[tuple[float, int, bytes, bytes, str]] = []
        self._count = 0

    def obey(self, command: str, name: str, *more: str) -> None:
        match command:
            case "plug":
                self._plug(name, more[0])
            case "unplug":
                os.close(self._ports.pop(name)[0])
            case "delay":
                self._delay_s = float(name)
            case "cut":
                self._cut.add(name)
            case "mend":
                self._cut.discard(name)
            case _:
                raise AssertionError(command)

    def _plug(self, name: str, address: str) -> None:
        back = enter(name)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"lan", IFF_TUN | IFF_NO_PI))
        join(back)
        for words in (
            ["addr", "add", f"{address}/24", "dev", "lan"],
            ["link", "set", "lan", "mtu", str(MTU), "up"],
            ["link", "set", "lo", "up"],
        ):
            subprocess.run(["ip", "-n", name, *words], check=True)
        self._ports[name] = (device, bytes(int(part) for part in address.split(".")))

    def serve(self) -> None:
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            devices = {device: name for name, (device, _) in self._ports.items()}
            ready, _, _ = select.select([0, *devices], [], [], wait)
            for handle in ready:
                if handle in devices:
                    self._take(handle, devices[handle])
            self._deliver()
            if 0 in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                self.obey(*line.split())
                print("ok", flush=True)

    def _take(self, device: int, sender: str) -> None:
        for _ in range(64):
            try:
                packet = os.read(device, MTU + 100)
            except OSError:  # no more for now, or its namespace is gone
                return
            if packet[0] >> 4 == 4 and sender not in self._cut:
                self._count += 1
                due = time.monotonic() + self._delay_s
                heapq.heappush(self._late, (due, self._count, packet[16:20], packet, sender))

    def _deliver(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            _, _, target, packet, sender = heapq.heappop(self._late)
            for name, (device, address) in self._ports.items():
                if address == target and not {name, sender} & self._cut:
                    try:
                        os.write(device, packet)
                    except OSError:  # full, or gone: what a network does then is lose it
                        continue


if __name__ == "__main__":
    Switch().serve()
