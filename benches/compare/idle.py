"""Memory of the proxy for each connection that is kept alive and idle, plain and TLS.

One request is made on each connection first: a connection that never carried one costs less. The sockets' memory in
the kernel is not counted.
"""

import resource
import socket
import ssl
import time

import load
from bench import get, stop
from machine import memory_kb

PLAIN_CONNECTIONS = 10_000
TLS_CONNECTIONS = 2_000
# Files that the proxy and the load generator have open besides connections.
OTHER_FILES = 500
SETTLE_SECONDS = 1


def connections_allowed(wanted):
    """As many connections as the limit of open files leaves; proxy and load generator have the same limit."""
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES)


def resting_memory(proxy):
    """Memory after a first request, when things have settled."""
    get(proxy.place.http)
    time.sleep(0.3)
    return memory_kb(proxy.pids)


def figures(before, after, opened, **more):
    """The figures of a row."""
    held = max(1, opened - more.get("closed_by_proxy", 0))
    sizes = {"memory_before_mb": before / 1024, "memory_after_mb": after / 1024}
    return {"kb_per_connection": (after - before) / held, "opened": opened, **sizes, **more}


def plain(bench, proxy, _seconds):
    """Idle connections without TLS, held by loadgen."""
    before = resting_memory(proxy)
    wanted = connections_allowed(PLAIN_CONNECTIONS)
    arguments = [*load.loadgen_arguments(proxy.place.http, 0, connections=wanted), "-i"]
    generator = bench.start_load(arguments, stdin=-1, stdout=-1)
    try:
        if not generator.stdout.readline().startswith("ready"):
            raise RuntimeError("loadgen did not open its connections")
        time.sleep(SETTLE_SECONDS)
        after = memory_kb(proxy.pids)
        told = load.finished(generator.communicate()[0])
    finally:
        stop(generator)
    return figures(before, after, told["opened"], closed_by_proxy=told["closed_idle"], failed=told["errors"])


def tls(_bench, proxy, _seconds):
    """Idle connections with TLS, held by this process."""
    before = resting_memory(proxy)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    held = []
    try:
        for _ in range(connections_allowed(TLS_CONNECTIONS)):
            held.append(connected(context, proxy.place.https))
        time.sleep(SETTLE_SECONDS)
        return figures(before, memory_kb(proxy.pids), len(held))
    finally:
        for connection in held:
            connection.close()


def connected(context, port):
    """A TLS connection on which one request has been answered."""
    plain_socket = socket.create_connection(("127.0.0.1", port), timeout=10)
    plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = context.wrap_socket(plain_socket, server_hostname="localhost")
    connection.sendall(b"GET /1k HTTP/1.1\r\nhost: localhost\r\n\r\n")
    received = b""
    while b"x" * 1024 not in received:
        part = connection.recv(65536)
        if not part:
            raise RuntimeError("the proxy closed a TLS connection")
        received += part
    return connection
