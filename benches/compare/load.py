"""The load generators, each with one function that runs it and returns its figures.

wrk for most rows, h2load for HTTP/2, ab for full TLS handshakes (wrk resumes sessions), and tools/loadgen.c where
the rate is fixed or each request must be known. Latencies are microseconds.
"""

import json
import re
import struct
from dataclasses import dataclass

import install
from peer import HOSTS

RECORD = struct.Struct("<QQQII")
BACKENDS = {0: None, 1: "blue", 2: "green"}

# Appended to every script of wrk: the figures as JSON.
WRK_REPORT = """
wrk.headers["Host"] = wrk.headers["Host"] or "localhost"
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'JSON{"requests":%d,"microseconds":%d,"bytes":%d,"errors":%d,"bad_status":%d,"p50":%.1f,"p90":%.1f,"p99":%.1f,"p999":%.1f}\\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"""

BROWSER_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Cache-Control": "max-age=0",
    "Referer": "https://shop.example.com/catalogue/shoes?page=3",
    "Cookie": "sid=3f9a1c77e2b84d5a9c0e; variant=green; consent=1; _ga=GA1.2.1234567890.1700000000",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Upgrade-Insecure-Requests": "1",
    "X-Request-Id": "b7c1d6f0-3a52-4d6e-9a53-0d8a6c1e2f11",
    "Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln",
}

SCRIPTS = {
    "get": "",
    "close": 'wrk.headers["Connection"] = "close"\n',
    "post": 'wrk.method = "POST"\nwrk.body = string.rep("x", 16384)\n'
    'wrk.headers["Content-Type"] = "application/octet-stream"\n',
    "browser": "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in BROWSER_HEADERS.items()),
}


def route_script(routes, only_last):
    """A script that asks for the last route, or for all routes in an order without locality."""
    numbers = [routes - 1] if only_last else [n * 7919 % routes for n in range(routes)]
    return f"""
local numbers, requests, next = {{{",".join(map(str, numbers))}}}, {{}}, 0
init = function()
  for i, n in ipairs(numbers) do
    requests[i] = wrk.format("GET", "/p" .. n .. "/1k", {{Host = "h" .. (n % {HOSTS}) .. ".example.com"}})
  end
end
request = function()
  next = next % #requests + 1
  return requests[next]
end
"""


def wrk(bench, seconds, connections, url, script="get", threads=1):
    """Closed loop: as many requests as are answered. `script` is a name in SCRIPTS or a script itself."""
    path = bench.directory / "load.lua"
    path.write_text(SCRIPTS.get(script, script) + WRK_REPORT)
    arguments = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}", "-s", str(path), url]
    output = bench.run_load(arguments)
    found = re.search(r"JSON(\{.*\})", output)
    if not found:
        raise RuntimeError(f"wrk: {output[-400:]}")
    figures = json.loads(found.group(1))
    figures["rps"] = figures["requests"] / (figures.pop("microseconds") / 1e6)
    return figures


def ab(bench, seconds, connections, url):
    """One request on each connection, and no TLS session is used twice."""
    arguments = ["ab", "-q", "-c", str(connections), "-t", str(seconds), "-n", "10000000", "-f", "TLS1.3", url]
    output = bench.run_load(arguments)

    def number(pattern):
        found = re.search(pattern, output)
        return float(found.group(1)) if found else 0

    requests = int(number(r"Complete requests:\s+(\d+)"))
    if not requests:
        raise RuntimeError(f"ab: {output[-400:]}")
    return {
        "requests": requests,
        "rps": number(r"Requests per second:\s+([\d.]+)"),
        "errors": int(number(r"Failed requests:\s+(\d+)")),
        "bad_status": int(number(r"Non-2xx responses:\s+(\d+)")),
        "p50": number(r"50%\s+(\d+)") * 1000,
        "p99": number(r"99%\s+(\d+)") * 1000,
    }


H2_CONNECTIONS, H2_STREAMS = 8, 32


def h2load(bench, seconds, url):
    """HTTP/2: 8 connections of 32 streams."""
    log = bench.directory / "h2load.log"
    arguments = ["h2load", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", "-t1", f"-D{seconds}"]
    output = bench.run_load([*arguments, "--header=:authority: localhost", f"--log-file={log}", url])
    found = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", output)
    if not found or "Application protocol: h2" not in output:
        raise RuntimeError(f"h2load: {output[:600]}")
    latencies = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
    log.unlink()
    succeeded, failed = int(found.group(2)), int(found.group(3))
    # Streams that are open when time is up are told as failed; there are never more than these.
    open_at_end = H2_CONNECTIONS * H2_STREAMS
    figures = {
        "requests": succeeded,
        "rps": succeeded / seconds,
        "errors": max(0, failed - open_at_end),
        "bad_status": 0,
    }
    return {**figures, **percentiles(latencies)}


def percentiles(latencies):
    """p50, p99 and p999 of latencies; nothing of none."""
    ordered = sorted(latencies)
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in shares.items()}


def loadgen_arguments(port, seconds, rate=0, connections=64, log=None, host="localhost", path="/1k"):
    """The command line of loadgen; without a rate it is a closed loop."""
    arguments = [install.tool("loadgen"), "-p", str(port), "-d", str(seconds), "-c", str(connections)]
    arguments += ["-H", host, "-u", path]
    arguments += ["-r", str(rate)] if rate else []
    return arguments + (["-l", str(log)] if log else [])


def loadgen(bench, port, seconds, rate):
    """Open loop: requests at even distances; latency counts from when a request was due."""
    output = bench.run_load(loadgen_arguments(port, seconds, rate))
    return finished(output)


def finished(output):
    """The figures that loadgen printed."""
    figures = json.loads(output.strip().splitlines()[-1])
    figures["errors"] = figures["broken"] + figures["refused"]
    return figures


@dataclass(frozen=True)
class Request:
    """One request of loadgen's log; times are of CLOCK_MONOTONIC, in nanoseconds."""

    due: int
    sent: int
    done: int
    status: int
    backend: str | None

    @property
    def latency(self):
        """From when it was due, in microseconds."""
        return (self.done - self.due) / 1000


def read_log(path):
    """All requests of a log, which is removed."""
    records = RECORD.iter_unpack(path.read_bytes())
    requests = [Request(due, sent, done, status, BACKENDS[backend]) for due, sent, done, status, backend in records]
    path.unlink()
    return requests
