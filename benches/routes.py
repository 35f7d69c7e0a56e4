#!/usr/bin/env python3
"""What a request costs with 10 routes and with 10 000: CPU time of the proxy for each request, as a ratio.

Needs a release build, nginx and h2load. Both configurations run at the same time and are asked in turn, so
that whatever else the machine does hits both. Prints one line for each round, and the median.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BINARY = Path(__file__).resolve().parent.parent / "target" / "release" / "switchback"
REQUESTS = 40_000
ROUNDS = 7

HEAD = """version: 1
workers: 1
admin: {address: "127.0.0.1:0"}
access_log: {format: "off"}
listeners: {web: {address: "127.0.0.1:0", limits: {requests_per_connection: off}}}
"""


def config(routes, origin):
    lines = [f"  - {{host: h{n % 100}.example.com, path: /p{n}, service: shop}}" for n in range(routes)]
    backend = f'services: {{shop: {{backends: {{only: {{endpoints: ["http://127.0.0.1:{origin}"]}}}}}}}}'
    return HEAD + "routes:\n" + "\n".join(lines) + "\n" + backend + "\n"


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            sys.exit(f"{path} did not appear")
        time.sleep(0.01)
    return json.loads(path.read_text())


def start_nginx(directory):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = f"""daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
  uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }} }}"""
    (directory / "nginx.conf").write_text(text)
    arguments = ["nginx", "-e", str(directory / "error.log"), "-c", str(directory / "nginx.conf")]
    process = subprocess.Popen(arguments)
    for _ in range(1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        time.sleep(0.01)
    sys.exit("nginx does not listen")


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def main():
    os.environ["PATH"] += ":/usr/sbin"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        nginx, origin = start_nginx(directory)
        proxies = {}
        for routes in (10, 10_000):
            home = directory / str(routes)
            home.mkdir()
            (home / "switchback.yaml").write_text(config(routes, origin))
            arguments = [str(BINARY), "run", "--config", str(home / "switchback.yaml"), "--state-dir", str(home / "state")]
            process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
            address = wait_for(home / "state" / "run.json")["listeners"]["web"]
            proxies[routes] = (process, address)
        ratios = []
        for number in range(ROUNDS):
            cost = {}
            for routes, (process, address) in proxies.items():
                last = routes - 1
                before = cpu_ticks(process.pid)
                url = f"http://{address}/p{last}/x"
                host = f":authority: h{last % 100}.example.com"
                done = subprocess.run(
                    ["h2load", "--h1", "-n", str(REQUESTS), "-c", "16", "-H", host, url],
                    capture_output=True, text=True, check=True,
                )
                if f"{REQUESTS} succeeded" not in done.stdout:
                    sys.exit(done.stdout)
                cost[routes] = cpu_ticks(process.pid) - before
            ratios.append(cost[10_000] / cost[10])
            print(f"round {number + 1}: 10 000 routes / 10 routes = {ratios[-1]:.3f}", flush=True)
        print(f"median: {statistics.median(ratios):.3f}")
        for process, _ in proxies.values():
            process.terminate()
            process.wait()
        nginx.terminate()
        nginx.wait()


if __name__ == "__main__":
    main()
