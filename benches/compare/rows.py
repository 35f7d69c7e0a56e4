"""The rows of the comparison: what each workload measures, in which figure, and what switchback must reach.

Only words and numbers, so that saved runs can be reported anywhere. How a row is measured is in workloads.py.
"""

from dataclasses import dataclass

LOADED = ("rps", "cpu_us", "user_us", "sys_us", "p50", "p99", "errors", "bad_status", "busy", "memory_mb")
SWITCH = ("switch_ms", "command_ms", "failed", "closed_idle", "latency_max_ms", "rps")
IDLE = ("kb_per_connection", "opened", "closed_by_proxy", "memory_before_mb", "memory_after_mb")


@dataclass(frozen=True)
class Row:
    """One workload: its name, what it is, and its main figure, by which peers are compared."""

    name: str
    title: str
    figure: str
    unit: str
    higher_is_better: bool = False
    columns: tuple[str, ...] = LOADED
    # Whether peers are compared by ratio; rows that are ratios themselves, or near zero, are not.
    compared: bool = True


def cpu(name, title, columns=LOADED):
    """A row whose figure is the proxy's CPU time for each request."""
    return Row(name, title, "cpu_us", "CPU us/request", columns=columns)


def bulk(name, title):
    """A row whose figure is how much the proxy moves in a second of its CPU time."""
    return Row(name, title, "gb_per_cpu_s", "GB/CPU s", True, ("gb_per_cpu_s", *LOADED))


ROWS = {
    row.name: row
    for row in (
        cpu("W1", "GET 1 KiB, kept alive, 64 connections"),
        cpu("W2", "GET 16 KiB, kept alive, 64 connections"),
        bulk("W3", "downloads of 1 MiB, 8 connections"),
        cpu("W4", "POST 16 KiB, 64 connections"),
        cpu("W5", "TLS 1.3, GET 1 KiB, kept alive, 64 connections"),
        cpu("W6", "TLS and HTTP/2 to HTTP/1.1, GET 1 KiB, 8 connections of 32 streams"),
        cpu("W7", "a new TCP connection for each request, 64 at a time"),
        cpu("W8", "a new TLS 1.3 connection for each request, full handshakes"),
        cpu("W8r", "a new TLS 1.3 connection for each request, sessions resumed where offered"),
        Row("W9", "idle connections, kept alive", "kb_per_connection", "KiB/connection", columns=IDLE),
        Row("W9t", "idle TLS connections, kept alive", "kb_per_connection", "KiB/connection", columns=IDLE),
        Row(
            "W10",
            "3 000 requests a second at even distances: latency added to going direct",
            "added_p99",
            "added us, p99",
            columns=("added_p50", "added_p99", "added_p999", "p50", "p99", "p999", "cpu_us", "errors"),
        ),
        Row("W11", "weights 100/0 to 0/100 under W1's load", "switch_ms", "ms", columns=SWITCH, compared=False),
        Row(
            "W11r",
            "weights 100/0 to 0/100 at 3 000 requests a second",
            "switch_ms",
            "ms",
            columns=SWITCH,
            compared=False,
        ),
        bulk("W12", "TLS downloads of 1 MiB, 8 connections"),
        cpu("W13", "GET 1 KiB, 1 connection"),
        cpu("W14", "W1 with 13 request headers, as a browser sends them"),
        Row(
            "routes",
            "cost with 10 000 routes and 1 000 services of 4 backends against 1 of each",
            "one_ratio",
            "x the cost with 1",
            columns=(
                "one_ratio",
                "spread_ratio",
                "small_cpu_us",
                "one_cpu_us",
                "spread_cpu_us",
                "errors",
                "small_rest_busy",
                "large_rest_busy",
                "ready_s",
            ),
            compared=False,
        ),
        Row(
            "reload",
            "p99 at 1 000 requests a second while 10 000 routes are reloaded, against p99 without",
            "p99_ratio",
            "x p99 without",
            columns=(
                "p99_ratio",
                "quiet_p99",
                "reload_p99",
                "quiet_max",
                "reload_max",
                "reload_ms",
                "seen",
                "failed",
            ),
            compared=False,
        ),
        Row(
            "workers",
            "requests in a second of CPU time, two workers on two CPUs against one on one, times two",
            "scaling",
            "x one worker",
            True,
            ("scaling", "one_cpu_us", "two_cpu_us", "one_rps", "two_rps", "rps_ratio", "errors"),
            compared=False,
        ),
        Row(
            "syscalls",
            "system calls for each request of W1",
            "total",
            "calls/request",
            columns=("total", "calls"),
        ),
    )
}

# What a goal compares: the median ratio to an anchor, or the candidate's own figure.
RATIO, VALUE = "ratio", "value"


@dataclass(frozen=True)
class Goal:
    """What switchback must reach in a row (`must`), and what it wants to reach (`goal`).

    `against` names the anchor of a ratio; without it the best anchor of each round is taken. A `goal` of None is
    what the bare forwarder reaches in the same run.
    """

    row: str
    figure: str
    kind: str
    must: float
    goal: float | None
    higher_is_better: bool = False
    against: str | None = None


def ratio(row, must, goal):
    """A goal for the row's main figure against the best anchor."""
    return Goal(row, ROWS[row].figure, RATIO, must, goal, ROWS[row].higher_is_better)


GOALS = (
    ratio("W1", 1.00, 0.85),
    ratio("W2", 1.05, 0.95),
    ratio("W3", 1.00, 1.10),
    ratio("W4", 0.95, 0.80),
    ratio("W5", 0.90, 0.75),
    ratio("W6", 1.15, 1.00),
    ratio("W7", 1.05, 1.00),
    ratio("W8", 0.75, 0.65),
    ratio("W8r", 0.75, 0.65),
    Goal("W9", "kb_per_connection", VALUE, 4, 1),
    Goal("W9t", "kb_per_connection", VALUE, 16, 12),
    Goal("W10", "added_p50", RATIO, 1.00, None, against="nginx"),
    Goal("W10", "added_p99", RATIO, 1.00, None, against="nginx"),
    Goal("W11", "switch_ms", VALUE, 1, 0.3),
    Goal("W11", "failed", VALUE, 0, 0),
    Goal("W11", "closed_idle", VALUE, 0, 0),
    Goal("W11r", "switch_ms", VALUE, 1, 0.3),
    Goal("W11r", "failed", VALUE, 0, 0),
    Goal("W11r", "closed_idle", VALUE, 0, 0),
    ratio("W12", 1.00, 1.50),
    ratio("W14", 1.00, 0.85),
    Goal("routes", "one_ratio", VALUE, 1.05, 1.02),
    Goal("reload", "p99_ratio", VALUE, 2, 2),
    Goal("workers", "scaling", VALUE, 1.9, 1.9, higher_is_better=True),
)
