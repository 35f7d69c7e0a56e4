"""What the machine and the kernel say: CPU time, memory and processes from /proc, free ports, CPUs to pin to.

Everything here reads; nothing changes the machine. Times are seconds, sizes are bytes unless the name says so.
"""

import os
import platform
import re
import socket
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# Fields of /proc/PID/stat behind the name of the process, which may itself contain blanks.
STAT_PARENT, STAT_USER, STAT_SYSTEM = 1, 11, 12


@dataclass(frozen=True)
class Layout:
    """Which CPUs the proxy has to itself, and which the origins and load generators share."""

    proxy: frozenset[int]
    load: frozenset[int]

    @classmethod
    def of_this_machine(cls, workers=1):
        """The first CPUs for the proxy's workers, as many others as there are for the load, at least one.

        Where there are not enough CPUs for both, the load shares the last one with the proxy.
        """
        cpus = sorted(os.sched_getaffinity(0))
        return cls.of_cpus(cpus, workers)

    @classmethod
    def of_cpus(cls, cpus, workers):
        """The layout for these CPUs; see `of_this_machine`."""
        proxy = cpus[:workers]
        load = cpus[workers : workers + max(1, workers)] or cpus[-1:]
        return cls(frozenset(proxy), frozenset(load))

    @property
    def separate(self):
        """Whether proxy and load do not disturb each other."""
        return not self.proxy & self.load


def stat_fields(pid):
    """The fields of /proc/PID/stat behind the process name; None when the process has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def descendants(pid):
    """The process and all its living descendants."""
    children = {}
    for name in os.listdir("/proc"):
        fields = stat_fields(name) if name.isdigit() else None
        if fields:
            children.setdefault(int(fields[STAT_PARENT]), []).append(int(name))
    found, waiting = [], [pid]
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += children.get(process, [])
    return found


def cpu_seconds(pids):
    """User and system time that these processes have taken so far, all threads together."""
    user = system = 0
    for pid in pids:
        fields = stat_fields(pid)
        if fields:
            user += int(fields[STAT_USER])
            system += int(fields[STAT_SYSTEM])
    return user / TICKS_PER_SECOND, system / TICKS_PER_SECOND


def busy_seconds(cpus):
    """How long these CPUs have been busy so far, for whomever."""
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy / TICKS_PER_SECOND


def memory_kb(pids):
    """Proportional set size of these processes, in KiB."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+)", text, re.M)
        total += int(found.group(1)) if found else 0
    return total


def free_ports(count):
    """So many TCP ports that nothing on 127.0.0.1 uses at the moment, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def ephemeral_ports():
    """How many ports the kernel gives to outgoing connections."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return high - low + 1


def cpu_model():
    """The name that the CPU gives itself."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found.group(1) if found else platform.machine()


def describe():
    """What a reader must know of the machine to judge the figures."""
    return {
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }
