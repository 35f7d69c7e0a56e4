"""How each row is measured: one function for each, that returns the figures of one sample.

The main figure is CPU time for each request: what all of the proxy's processes took during the load, divided by the
requests that were answered. It holds whether or not the proxy was saturated, and hardly depends on the clients.
"""

import time
from dataclasses import dataclass

import idle
import load
import syscalls
from bench import Proxy, stop
from machine import Layout, busy_seconds, cpu_seconds, memory_kb
from peer import Fleet
from rows import ROWS

CONNECTIONS = 64
FEW_CONNECTIONS = 8
# The fixed rate of W10 and W11r: far below what any peer can do.
RATE = 3000
RATE_SECONDS_MIN = 5
SWITCH_LEAD_SECONDS = 1.5

MANY = Fleet(routes=10_000, services=1_000, backends=4)
ONE = Fleet(routes=1, services=1, backends=1)
FLEET_SLICES = 3
FLEET_WARM_SECONDS = 2
REST_SECONDS = 2

RELOAD_RATE = 1000
RELOADS = 5
QUIET_SECONDS_MIN = 2


@dataclass(frozen=True)
class Workload:
    """A row with its way to be measured.

    `measure(bench, proxy, seconds)` gets a running proxy; where `own_proxies` is set it gets the peer instead and
    starts what it needs. `fresh` asks for a proxy that served nothing before.
    """

    row: object
    measure: object
    fresh: bool = False
    own_proxies: bool = False
    weights: tuple[int, int] = (95, 5)


def loaded(bench, proxy, seconds, run, warm=1):
    """The figures of a load, with what the proxy took for it. `run(seconds)` is the load."""
    run(min(warm, seconds))
    load_cpus = bench.load_cpus
    watched = proxy.cpus if not proxy.cpus & load_cpus else proxy.cpus | load_cpus
    user, system = cpu_seconds(proxy.pids)
    own, busy, began = bench.own_seconds(), busy_seconds(watched), time.monotonic()
    figures = run(seconds)
    took = time.monotonic() - began
    user_after, system_after = cpu_seconds(proxy.pids)
    user, system = user_after - user, system_after - system
    busy, own = busy_seconds(watched) - busy, bench.own_seconds() - own
    ours = user + system + (own if watched != proxy.cpus else 0)
    requests = max(1, figures["requests"])
    figures["cpu_us"] = (user + system) * 1e6 / requests
    figures["user_us"], figures["sys_us"] = user * 1e6 / requests, system * 1e6 / requests
    if figures.get("bytes") and user + system:
        figures["gb_per_cpu_s"] = figures["bytes"] / 1e9 / (user + system)
    figures["busy"] = (user + system) / took
    figures["foreign"] = max(0.0, (busy - ours) / took / len(watched))
    figures["load_busy"] = own / took / len(load_cpus)
    figures["memory_mb"] = memory_kb(proxy.pids) / 1024
    return figures


def by_wrk(connections=CONNECTIONS, path="/1k", script="get", tls=False):
    """A measurement with wrk."""

    def measure(bench, proxy, seconds):
        url = proxy.secure(path) if tls else proxy.plain(path)
        return loaded(bench, proxy, seconds, lambda t: load.wrk(bench, t, connections, url, script))

    return measure


def by_h2load(bench, proxy, seconds):
    """HTTP/2 over TLS."""
    return loaded(bench, proxy, seconds, lambda t: load.h2load(bench, t, proxy.secure()))


def by_ab(bench, proxy, seconds):
    """Full TLS handshakes."""
    return loaded(bench, proxy, seconds, lambda t: load.ab(bench, t, CONNECTIONS, proxy.secure()))


def at_rate(bench, proxy, seconds):
    """Latency at a fixed rate."""
    seconds = max(seconds, RATE_SECONDS_MIN)
    return loaded(bench, proxy, seconds, lambda t: load.loadgen(bench, proxy.place.http, t, RATE))


def direct(bench, seconds):
    """The same load as `at_rate`, straight to an origin."""
    load.loadgen(bench, bench.common["blue"], 1, RATE)
    return load.loadgen(bench, bench.common["blue"], max(seconds, RATE_SECONDS_MIN), RATE)


def switch(rate):
    """Weights go from 100/0 to 0/100 under load: how long, and what breaks."""

    def measure(bench, proxy, _seconds):
        # Told once what holds already, all peers alike: what this program and theirs do only the first time (load
        # modules, make connections) is not a switch.
        proxy.peer.switch(proxy.place, 100, 0)
        log = bench.directory / "switch.log"
        seconds = SWITCH_LEAD_SECONDS + proxy.peer.settles
        arguments = load.loadgen_arguments(proxy.place.http, seconds, rate, CONNECTIONS, log)
        generator = bench.start_load(arguments, stdout=-1)
        try:
            time.sleep(SWITCH_LEAD_SECONDS)
            began = time.monotonic_ns()
            proxy.peer.switch(proxy.place, 0, 100)
            told = time.monotonic_ns()
            figures = load.finished(generator.communicate()[0])
        finally:
            stop(generator)
        return {**figures, "command_ms": (told - began) / 1e6, **switched(load.read_log(log), began)}

    return measure


def switched(requests, began):
    """What a switch that began at this time did to the requests around it."""
    around = began - 50_000_000
    answered = [r for r in requests if r.status == 200]
    old = [r.sent for r in answered if r.backend == "blue"]
    new = [r.sent for r in answered if r.backend == "green"]
    if not old or not new:
        raise RuntimeError(f"no switch seen: {len(old)} requests before, {len(new)} after")
    return {
        # Zero: every request that was sent after the command began went to the new backend.
        "switch_ms": max(0.0, (max(old) - began) / 1e6),
        "first_new_ms": (min(new) - began) / 1e6,
        "failed": sum(r.status != 200 for r in requests if r.sent >= around),
        "latency_max_ms": max(r.done - r.sent for r in requests if r.sent >= around) / 1e6,
    }


def routes(bench, peer, seconds):
    """Cost with many routes against one: both proxies run at once and are asked in turn, in short slices."""
    costs = {"small": [], "one": [], "spread": []}
    errors = 0
    with Proxy(bench, peer, fleet=ONE) as small, Proxy(bench, peer, fleet=MANY) as large:
        asked = {
            "small": (small, load.route_script(ONE.routes, only_last=True)),
            "one": (large, load.route_script(MANY.routes, only_last=True)),
            "spread": (large, load.route_script(MANY.routes, only_last=False)),
        }
        for proxy, script in asked.values():
            load.wrk(bench, FLEET_WARM_SECONDS, CONNECTIONS, proxy.plain(), script)
        rest = {f"{name}_rest_busy": busy_at_rest(proxy) for name, proxy in (("small", small), ("large", large))}
        for _ in range(FLEET_SLICES):
            for name, (proxy, script) in asked.items():
                figures = loaded(bench, proxy, seconds, wrk_of_routes(bench, proxy, script), warm=0.2)
                costs[name].append(figures["cpu_us"])
                errors += figures["errors"] + figures["bad_status"]
        ready = large.ready_s
    result = {f"{name}_cpu_us": middle(values) for name, values in costs.items()}
    for name in ("one", "spread"):
        result[f"{name}_ratio"] = middle([a / b for a, b in zip(costs[name], costs["small"], strict=True)])
    return {**result, **rest, "errors": errors, "ready_s": ready}


def busy_at_rest(proxy):
    """The share of a CPU that a proxy takes without requests: it is in the cost of each request, too."""
    before, began = sum(cpu_seconds(proxy.pids)), time.monotonic()
    time.sleep(REST_SECONDS)
    return (sum(cpu_seconds(proxy.pids)) - before) / (time.monotonic() - began)


def wrk_of_routes(bench, proxy, script):
    """A load of wrk with this script; wrk counts whole seconds."""
    return lambda t: load.wrk(bench, max(1, round(t)), CONNECTIONS, proxy.plain(), script)


def middle(values):
    """The median, of an odd number of values."""
    return sorted(values)[len(values) // 2]


def reload(bench, peer, seconds):
    """p99 of traffic at a fixed rate while many routes are reloaded, against the p99 before.

    The proxy may use every CPU, so that what reads the file need not take turns with what serves.
    """
    log = bench.directory / "reload.log"
    quiet = max(seconds, QUIET_SECONDS_MIN)
    every_cpu = bench.layout.proxy | bench.layout.load
    with Proxy(bench, peer, fleet=MANY, cpus=every_cpu) as proxy:
        # Texts first: nothing but the reload itself may run during the load.
        texts = [reload_text(peer, proxy.place, number) for number in range(RELOADS)]
        host, path = proxy.place.probe
        arguments = load.loadgen_arguments(proxy.place.http, 600, RELOAD_RATE, CONNECTIONS, log, host, path)
        generator = bench.start_load(arguments, stdout=-1)
        try:
            time.sleep(quiet + 1)
            windows = []
            for text in texts:
                began = time.monotonic_ns()
                peer.reload(proxy.place, proxy.process.pid, text)
                windows.append((began, time.monotonic_ns()))
                time.sleep(0.5)
            # It ends early, with its log, when asked to.
            generator.terminate()
            figures = load.finished(generator.communicate()[0])
        finally:
            stop(generator)
    return {**reloaded(load.read_log(log), windows, quiet), "closed_idle": figures["closed_idle"]}


def reload_text(peer, place, number):
    """The configuration with some more routes than before: a reload must change something."""
    fleet = Fleet(MANY.routes + number + 1, MANY.services, MANY.backends)
    (text,) = peer.files(place.__class__(**{**vars(place), "fleet": fleet})).values()
    return text


def reloaded(requests, windows, quiet):
    """Latencies of requests that were due during reloads, against those before the first."""
    first = windows[0][0]
    before = [r for r in requests if first - quiet * 1e9 <= r.due < first]
    during = [r for r in requests if any(began <= r.due <= told for began, told in windows)]
    if not before or not during:
        raise RuntimeError(f"{len(before)} requests before reloads and {len(during)} during them are too few")
    quiet_p99, reload_p99 = (load.percentiles([r.latency for r in part])["p99"] for part in (before, during))
    return {
        "p99_ratio": reload_p99 / quiet_p99,
        "quiet_p99": quiet_p99,
        "reload_p99": reload_p99,
        "quiet_max": max(r.latency for r in before),
        "reload_max": max(r.latency for r in during),
        "reload_ms": middle([(told - began) / 1e6 for began, told in windows]),
        "seen": len(during),
        "failed": sum(r.status != 200 for r in requests if r.due >= first),
    }


def workers(bench, peer, seconds):
    """Requests in a second of CPU time with two workers against one, at saturation.

    Where the machine has CPUs enough for both workers and as many load generators, the ratio of the throughputs is
    told too.
    """
    figures = {}
    for name, count in (("one", 1), ("two", 2)):
        layout = Layout.of_this_machine(count)
        bench.load_cpus = layout.load
        try:
            with Proxy(bench, peer, workers=count) as proxy:
                figures[name] = loaded(bench, proxy, seconds, wrk_of_workers(bench, proxy, count))
        finally:
            bench.load_cpus = bench.layout.load
    one, two = figures["one"], figures["two"]
    result = {f"{name}_{key}": f[key] for name, f in figures.items() for key in ("cpu_us", "rps", "busy")}
    result["scaling"] = 2 * one["cpu_us"] / two["cpu_us"]
    if layout.separate:
        result["rps_ratio"] = two["rps"] / one["rps"]
    return {**result, "errors": one["errors"] + two["errors"], "foreign": max(one["foreign"], two["foreign"])}


def wrk_of_workers(bench, proxy, count):
    """A load of as many connections for each worker, from as many threads as there are CPUs for it."""
    threads = len(bench.load_cpus)
    return lambda t: load.wrk(bench, t, CONNECTIONS * count, proxy.plain(), threads=threads)


MEASURES = {
    "W1": Workload(ROWS["W1"], by_wrk()),
    "W2": Workload(ROWS["W2"], by_wrk(path="/16k")),
    "W3": Workload(ROWS["W3"], by_wrk(FEW_CONNECTIONS, "/1m")),
    "W4": Workload(ROWS["W4"], by_wrk(path="/sink", script="post")),
    "W5": Workload(ROWS["W5"], by_wrk(tls=True)),
    "W6": Workload(ROWS["W6"], by_h2load),
    "W7": Workload(ROWS["W7"], by_wrk(script="close")),
    "W8": Workload(ROWS["W8"], by_ab),
    "W8r": Workload(ROWS["W8r"], by_wrk(script="close", tls=True)),
    "W9": Workload(ROWS["W9"], idle.plain, fresh=True),
    "W9t": Workload(ROWS["W9t"], idle.tls, fresh=True),
    "W10": Workload(ROWS["W10"], at_rate),
    "W11": Workload(ROWS["W11"], switch(rate=0), fresh=True, weights=(100, 0)),
    "W11r": Workload(ROWS["W11r"], switch(rate=RATE), fresh=True, weights=(100, 0)),
    "W12": Workload(ROWS["W12"], by_wrk(FEW_CONNECTIONS, "/1m", tls=True)),
    "W13": Workload(ROWS["W13"], by_wrk(1)),
    "W14": Workload(ROWS["W14"], by_wrk(script="browser")),
    "routes": Workload(ROWS["routes"], routes, own_proxies=True),
    "reload": Workload(ROWS["reload"], reload, own_proxies=True),
    "workers": Workload(ROWS["workers"], workers, own_proxies=True),
    "syscalls": Workload(ROWS["syscalls"], syscalls.measure),
}
