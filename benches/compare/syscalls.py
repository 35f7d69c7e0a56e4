"""System calls for each request, counted by perf on the kernel's tracepoints.

Needs root and tracefs. Counting slows the proxy down, so nothing else is taken from this row.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import install
import load
from bench import start, stop

TRACEFS = Path("/sys/kernel/tracing/events/raw_syscalls")
# fmt: off
CALLS = (
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "read", "readv", "recvfrom", "recvmsg", "write",
    "writev", "sendto", "sendmsg", "futex", "getsockopt", "setsockopt", "getsockname", "getpeername",
    "nanosleep", "clock_nanosleep", "clock_gettime", "sched_yield", "splice", "timerfd_settime", "madvise",
    "mmap", "munmap", "accept4", "close",
)
# fmt: on
CONNECTIONS = 64
WARM_SECONDS = 1
ATTACH_SECONDS = 0.3
# Rarer calls are left out of the table.
SHOWN_MIN = 0.01


def measure(bench, proxy, seconds):
    """The calls of W1, by name and in all."""
    if os.geteuid() != 0 or not TRACEFS.exists():
        raise RuntimeError("counting system calls needs root and `mount -t tracefs nodev /sys/kernel/tracing`")
    load.wrk(bench, WARM_SECONDS, CONNECTIONS, proxy.plain())
    counter = start(perf_arguments(proxy.pids), bench.load_cpus, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(ATTACH_SECONDS)
        figures = load.wrk(bench, seconds, CONNECTIONS, proxy.plain())
        counter.send_signal(signal.SIGINT)
        counts = counted(counter.communicate()[1])
    finally:
        stop(counter)
    total = counts.pop("sys_enter")
    requests = max(1, figures["requests"])
    calls = {name: count / requests for name, count in counts.items() if count / requests >= SHOWN_MIN}
    return {"total": total / requests, "calls": calls}


def perf_arguments(pids):
    """perf stat on these processes."""
    events = ["raw_syscalls:sys_enter", *(f"syscalls:sys_enter_{name}" for name in CALLS if known(name))]
    perf = install.find_command("perf")
    return [perf, "stat", "-x,", "-e", ",".join(events), "-p", ",".join(map(str, pids))]


def known(name):
    """Whether this kernel has the call."""
    return (TRACEFS.parent / "syscalls" / f"sys_enter_{name}").exists()


def counted(output):
    """Counts by the name of the call, from perf's comma-separated lines."""
    counts = {}
    for line in output.splitlines():
        found = re.match(r"(\d+),[^,]*,[^,:]*:(?:sys_enter_)?(\w+)", line)
        if found:
            counts[found.group(2)] = int(found.group(1))
    if "sys_enter" not in counts:
        raise RuntimeError(f"perf: {output[-400:]}")
    return counts
