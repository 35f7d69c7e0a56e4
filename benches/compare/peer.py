"""What a proxy of the comparison is: its task (`Place`, `Fleet`), and what it must know to do (`Peer`)."""

import http.client
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import install
from report import ANCHOR

HOSTS = 100
SCALE = frozenset({"routes", "reload"})


@dataclass(frozen=True)
class Fleet:
    """Many routes: route n is host h(n mod 100).example.com, path /pn, to service s(n mod services)."""

    routes: int
    services: int
    backends: int

    def route(self, number):
        """Host, path and service of a route."""
        return f"h{number % HOSTS}.example.com", f"/p{number}", f"s{number % self.services}"


@dataclass(frozen=True)
class Place:
    """Where a proxy runs and what it is to do: its directory, ports, certificate, origins and weights."""

    directory: Path
    http: int
    https: int
    admin: int
    certificate: Path
    key: Path
    bundle: Path
    blue: int
    green: int
    weights: tuple[int, int] = (95, 5)
    workers: int = 1
    fleet: Fleet | None = None

    @property
    def probe(self):
        """Host and path that are answered with 200 once the proxy is ready."""
        if self.fleet is None:
            return "localhost", "/1k"
        host, path, _service = self.fleet.route(0)
        return host, f"{path}/1k"


class Peer:
    """A proxy: how it is configured, started and changed."""

    name = ""
    kind = ANCHOR
    # The command to look for, and how it tells its version.
    command = ""
    version_arguments = ("--version",)
    # Rows that it cannot be measured in.
    lacks = SCALE
    # How long it may take until a changed weight is seen, in seconds.
    settles = 2.5

    def __init__(self, binary=None):
        self.binary = binary or install.find_command(self.command)

    def files(self, place):
        """The text of each file that it reads, by name."""
        raise NotImplementedError

    def arguments(self, place):
        """The command line."""
        raise NotImplementedError

    def environment(self, place):
        """What is added to the environment."""
        return {}

    def switch(self, place, blue, green):
        """Changes the weights in the fastest way it offers; returns when told so."""
        raise NotImplementedError

    def reload(self, place, process, text):
        """Takes over another text of its configuration; returns when it serves by it."""
        raise NotImplementedError

    def version(self):
        """The version that the binary tells."""
        done = subprocess.run(
            [self.binary, *self.version_arguments], capture_output=True, text=True, timeout=60, check=False
        )
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
        return found.group(0) if found else "unknown"


def ask(port, method, path, body=None, headers=None):
    """One call of an admin API; raises RuntimeError unless it succeeds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    content = {"Content-Type": "application/json"} if body else {}
    try:
        connection.request(method, path, body, {**content, **(headers or {})})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")


def replace(path, text):
    """Puts a new text in the place of a file in one step."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)
