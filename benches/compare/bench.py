"""The stage: a temporary directory, a certificate, two origins, and proxies that are started and stopped on it.

Everything listens on 127.0.0.1, on ports that were free. Proxies are pinned to their CPUs, origins and load
generators to the others. Each process leads a session and a group of its own; only these groups are ever ended.
"""

import http.client
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import install
import machine
from peer import Place

# Other work on the machine then takes little from the pinned CPUs. Needs root; without it, it is left out.
NICENESS = -11
START_TRIES = 3
START_SECONDS = 60

# Every TLS client uses the same suite and group, so that like is compared with like.
OPENSSL_CONFIG = """openssl_conf = a
[a]
ssl_conf = b
[b]
system_default = c
[c]
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
MinProtocol = TLSv1.3
"""


def allow_many_files():
    """As many open files as allowed, here and in what is started."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def prefer_this_process():
    """Ahead of other work, where we may."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        # Where the kernel groups processes by session, niceness counts inside of a session only.
        Path("/proc/self/autogroup").write_text(str(NICENESS))
    except OSError:
        pass


def start(arguments, cpus, **options):
    """Starts a process on these CPUs, in a session of its own."""

    def prepare():
        os.sched_setaffinity(0, cpus)
        prefer_this_process()

    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(arguments, start_new_session=True, preexec_fn=prepare, **options)


def stop(process):
    """Ends a process that `start` has started, with its group."""
    if process.poll() is None or group_lives(process.pid):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def group_lives(group):
    """Whether a process group still has members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def get(port, host="localhost", path="/1k", timeout=5):
    """The status of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class Proxy:
    """One running proxy."""

    def __init__(self, bench, peer, **task):
        """Starts it; `task` are the fields of `Place` that say what it is to do.

        Raises RuntimeError when it does not answer in time. Its ports may be taken by somebody else between our
        choice and its start, so it is tried more than once.
        """
        self.peer = peer
        self.workers = task.get("workers", 1)
        self.cpus = task.pop("cpus", None) or machine.Layout.of_this_machine(self.workers).proxy
        for attempt in range(START_TRIES):
            try:
                self.begin(bench, task)
                return
            except RuntimeError:
                if attempt == START_TRIES - 1:
                    raise

    def begin(self, bench, task):
        """One try to start."""
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.peer.name}-", dir=bench.directory))
        http_port, https_port, admin_port = machine.free_ports(3)
        self.place = Place(self.directory, http_port, https_port, admin_port, **bench.common, **task)
        for name, text in self.peer.files(self.place).items():
            (self.directory / name).write_text(text)
        environment = {**os.environ, **self.peer.environment(self.place)}
        with (self.directory / "output").open("w") as output:
            self.process = start(
                self.peer.arguments(self.place),
                self.cpus,
                cwd=self.directory,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        started = time.monotonic()
        try:
            self.wait_until_ready(started + START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.monotonic() - started

    def wait_until_ready(self, deadline):
        """Returns when it answers with 200."""
        while True:
            try:
                if get(self.place.http, *self.place.probe) == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                output = (self.directory / "output").read_text(errors="replace")
                raise RuntimeError(f"{self.peer.name} did not start: {output[-1000:]}")
            time.sleep(0.02)

    @property
    def pids(self):
        """The process and its descendants, as they are now."""
        return machine.descendants(self.process.pid)

    @property
    def lives(self):
        """Whether it has not ended."""
        return self.process.poll() is None

    def plain(self, path="/1k"):
        """The address of a path on its plain listener."""
        return f"http://localhost:{self.place.http}{path}"

    def secure(self, path="/1k"):
        """The address of a path on its TLS listener."""
        return f"https://localhost:{self.place.https}{path}"

    def stop(self):
        """Ends it."""
        stop(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.stop()


class Bench:
    """What all proxies of a run share."""

    def __init__(self):
        self.layout = machine.Layout.of_this_machine()
        self.load_cpus = self.layout.load
        self.directory = Path(tempfile.mkdtemp(prefix="switchback-compare-"))
        self.origins = []
        try:
            # In a directory of its own: proxies that watch their certificates hear of nothing else there.
            tls = self.directory / "tls"
            tls.mkdir()
            certificate, key = tls / "certificate.pem", tls / "key.pem"
            bundle = self.make_certificate(certificate, key)
            (self.directory / "openssl.cnf").write_text(OPENSSL_CONFIG)
            blue, green = (self.start_origin(name) for name in ("blue", "green"))
        except BaseException:
            self.close()
            raise
        self.common = {"certificate": certificate, "key": key, "bundle": bundle, "blue": blue, "green": green}

    def make_certificate(self, certificate, key):
        """A certificate for localhost that nobody need trust; also in one file with its key."""
        arguments = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        arguments += ["-keyout", str(key), "-out", str(certificate), "-days", "30", "-subj", "/CN=localhost"]
        arguments += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)
        bundle = certificate.with_name("bundle.pem")
        bundle.write_text(certificate.read_text() + key.read_text())
        return bundle

    def start_origin(self, name):
        """Starts an origin; it chooses its port and tells it."""
        origin = start([install.tool("origin"), "0", name], self.load_cpus, stdout=subprocess.PIPE, text=True)
        self.origins.append(origin)
        return int(origin.stdout.readline())

    def start_load(self, arguments, **options):
        """Starts a load generator."""
        environment = {**os.environ, "OPENSSL_CONF": str(self.directory / "openssl.cnf")}
        return start(arguments, self.load_cpus, env=environment, text=True, **options)

    def run_load(self, arguments):
        """Runs a load generator to its end; its output."""
        path = install.find_command(arguments[0]) or arguments[0]
        generator = self.start_load([path, *arguments[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            return generator.communicate()[0]
        finally:
            stop(generator)

    def own_seconds(self):
        """CPU time of the origins and of all load generators that have ended."""
        times = os.times()
        return sum(machine.cpu_seconds([origin.pid for origin in self.origins])) + times[2] + times[3]

    def close(self):
        """Ends the origins and removes the directory."""
        for origin in self.origins:
            stop(origin)
            origin.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()
