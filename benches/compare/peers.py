"""The proxies that are compared, each with its configuration and its fastest way to change weights.

All get the same task: plain and TLS listeners, one worker (or as many as `Place.workers` says), two backends split
by weight, kept-alive connections on both sides, no access log, nothing that closes an idle connection within ten
minutes. What a peer cannot do is named in `lacks`.

A new peer is a subclass of `Peer` in `PEERS`.
"""

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import install
from machine import descendants
from peer import Peer, ask, replace
from report import CANDIDATE, LIMIT
from rows import ROWS


class Nginx(Peer):
    """nginx, as Debian packages it. Weights are changed by a reload."""

    name = command = "nginx"
    version_arguments = ("-v",)
    lacks = frozenset()

    def files(self, place):
        return {"nginx.conf": self.text(place, place.weights)}

    def text(self, place, weights):
        """The configuration with these weights."""
        temporary = "".join(
            f"    {kind}_temp_path {place.directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        servers = self.fleet_servers(place) if place.fleet else self.split_server(place, weights)
        return f"""
{user} worker_processes {place.workers}; daemon off; pid {place.directory}/nginx.pid;
error_log {place.directory}/error.log error;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; use epoll; multi_accept on; }}
http {{
    access_log off; keepalive_timeout 600s; keepalive_requests 1000000000; tcp_nodelay on; tcp_nopush off;
{temporary}
    client_body_buffer_size 64k; proxy_buffers 16 16k; proxy_buffer_size 16k; proxy_max_temp_file_size 0;
    proxy_http_version 1.1; proxy_set_header Connection "";
{servers}
}}
"""

    def split_server(self, place, weights):
        """One server, whose requests are split between blue and green."""
        blue, green = (f"weight={weight}" if weight else "down" for weight in weights)
        return f"""
    upstream split {{
        server 127.0.0.1:{place.blue} {blue}; server 127.0.0.1:{place.green} {green};
        keepalive 512; keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{place.http} backlog=4096; listen 127.0.0.1:{place.https} ssl http2 backlog=4096;
        ssl_certificate {place.certificate}; ssl_certificate_key {place.key}; ssl_protocols TLSv1.2 TLSv1.3;
        http2_max_concurrent_streams 256;
        location / {{ proxy_pass http://split; }}
    }}"""

    def fleet_servers(self, place):
        """A server for each host, a location for each route, an upstream for each service."""
        fleet, locations, parts = place.fleet, {}, []
        for number in range(fleet.routes):
            host, path, service = fleet.route(number)
            locations.setdefault(host, []).append(f"location {path} {{ proxy_pass http://{service}; }}")
        ports = (place.blue, place.green)
        endpoints = " ".join(f"server 127.0.0.1:{ports[n % 2]};" for n in range(fleet.backends))
        for number in range(fleet.services):
            parts.append(f"    upstream s{number} {{ {endpoints} keepalive 64; keepalive_requests 1000000000; }}")
        for host, lines in locations.items():
            parts.append(
                f"    server {{ listen 127.0.0.1:{place.http}; server_name {host};\n" + "\n".join(lines) + " }"
            )
        return "\n".join(parts)

    def arguments(self, place):
        return [self.binary, "-e", f"{place.directory}/error.log", "-c", f"{place.directory}/nginx.conf"]

    def switch(self, place, blue, green):
        (place.directory / "nginx.conf").write_text(self.text(place, (blue, green)))
        subprocess.run([*self.arguments(place), "-s", "reload"], check=True, stderr=subprocess.DEVNULL)

    def reload(self, place, process, text):
        before = set(descendants(process)) - {process}
        (place.directory / "nginx.conf").write_text(text)
        subprocess.run([*self.arguments(place), "-s", "reload"], check=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not set(descendants(process)) - {process} - before:
            if time.monotonic() > deadline:
                raise RuntimeError("nginx: no new worker within 30 s of a reload")
            time.sleep(0.005)


class Haproxy(Peer):
    """HAProxy, as Debian packages it. Weights are changed over its control socket."""

    name = command = "haproxy"
    version_arguments = ("-v",)

    def files(self, place):
        blue, green = place.weights
        return {
            "haproxy.cfg": f"""
global
    nbthread {place.workers}
    no strict-limits
    maxconn 18000
    stats socket {place.directory}/control mode 600 level admin
    tune.ssl.default-dh-param 2048
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
frontend f
    maxconn 18000
    bind 127.0.0.1:{place.http}
    bind 127.0.0.1:{place.https} ssl crt {place.bundle} alpn h2,http/1.1
    default_backend b
backend b
    balance roundrobin
    server blue 127.0.0.1:{place.blue} weight {blue} pool-max-conn 512
    server green 127.0.0.1:{place.green} weight {green} pool-max-conn 512
"""
        }

    def arguments(self, place):
        return [self.binary, "-db", "-f", f"{place.directory}/haproxy.cfg"]

    def switch(self, place, blue, green):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(f"{place.directory}/control")
            control.sendall(f"set weight b/green {green}; set weight b/blue {blue}\n".encode())
            answer = b"".join(iter(lambda: control.recv(4096), b"")).decode().strip()
        if answer:
            raise RuntimeError(f"haproxy: {answer}")


class Envoy(Peer):
    """Envoy. Weights are changed by runtime keys over its admin listener."""

    name = command = "envoy"

    def files(self, place):
        def address(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        tls = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(place.certificate)},
                        "private_key": {"filename": str(place.key)},
                    }
                ],
            },
        }
        secure = {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls}}
        config = {
            "admin": {"address": address(place.admin)},
            "layered_runtime": {
                "layers": [{"name": "static", "static_layer": {}}, {"name": "admin", "admin_layer": {}}]
            },
            "static_resources": {
                "listeners": [
                    self.listener("http", address(place.http), place.weights, {}),
                    self.listener("https", address(place.https), place.weights, secure),
                ],
                "clusters": [
                    self.cluster("blue", address(place.blue)),
                    self.cluster("green", address(place.green)),
                ],
            },
        }
        return {"envoy.json": json.dumps(config, indent=1)}

    def listener(self, name, address, weights, socket_options):
        """A listener that splits what comes between blue and green."""
        clusters = [{"name": n, "weight": w} for n, w in zip(("blue", "green"), weights, strict=True)]
        split = {"runtime_key_prefix": "split", "clusters": clusters}
        routes = [{"match": {"prefix": "/"}, "route": {"weighted_clusters": split}}]
        extensions = "type.googleapis.com/envoy.extensions.filters"
        manager = {
            "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "codec_type": "AUTO",
            "generate_request_id": False,
            "http2_protocol_options": {"max_concurrent_streams": 256},
            "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{extensions}.http.router.v3.Router", "dynamic_stats": False},
                }
            ],
        }
        connection = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        return {"name": name, "address": address, "filter_chains": [{"filters": [connection], **socket_options}]}

    def cluster(self, name, address):
        """One backend, without limits that the load could meet."""
        limits = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        return {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        }

    def arguments(self, place):
        workers = ["--concurrency", str(place.workers)]
        return [self.binary, "-c", f"{place.directory}/envoy.json", *workers, "-l", "error", "--disable-hot-restart"]

    def switch(self, place, blue, green):
        ask(place.admin, "POST", f"/runtime_modify?split.blue={blue}&split.green={green}")


class Traefik(Peer):
    """Traefik. Weights are changed in a watched file."""

    name = command = "traefik"
    version_arguments = ("version",)
    settles = 5.0

    def files(self, place):
        timeouts = "transport: {respondingTimeouts: {idleTimeout: 600s}}"
        static = f"""
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
entryPoints:
  web: {{address: "127.0.0.1:{place.http}", {timeouts}}}
  websecure: {{address: "127.0.0.1:{place.https}", {timeouts}, http2: {{maxConcurrentStreams: 250}}}}
serversTransport: {{maxIdleConnsPerHost: 512}}
providers:
  providersThrottleDuration: 0s
  file: {{filename: {place.directory}/dynamic.yml, watch: true}}
"""
        return {"traefik.yml": static, "dynamic.yml": self.dynamic(place, *place.weights)}

    def dynamic(self, place, blue, green):
        """The watched file with these weights."""
        return f"""
http:
  routers:
    plain: {{rule: "PathPrefix(`/`)", service: split, entryPoints: [web]}}
    secure: {{rule: "PathPrefix(`/`)", service: split, entryPoints: [websecure], tls: {{}}}}
  services:
    split: {{weighted: {{services: [{{name: blue, weight: {blue}}}, {{name: green, weight: {green}}}]}}}}
    blue: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{place.blue}"}}]}}}}
    green: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{place.green}"}}]}}}}
tls:
  stores: {{default: {{defaultCertificate: {{certFile: {place.certificate}, keyFile: {place.key}}}}}}}
"""

    def arguments(self, place):
        return [self.binary, f"--configFile={place.directory}/traefik.yml"]

    def environment(self, place):
        return {"GOMAXPROCS": str(place.workers)}

    def switch(self, place, blue, green):
        replace(place.directory / "dynamic.yml", self.dynamic(place, blue, green))


class Caddy(Peer):
    """Caddy. Weights are changed over its admin API."""

    name = command = "caddy"
    version_arguments = ("version",)

    def files(self, place):
        secure = self.server(place, place.https, "secure")
        secure["tls_connection_policies"] = [{"default_sni": "localhost"}]
        certificate = {"certificate": str(place.certificate), "key": str(place.key)}
        config = {
            "admin": {"listen": f"127.0.0.1:{place.admin}"},
            "logging": {"logs": {"default": {"level": "ERROR"}}},
            "apps": {
                "http": {"servers": {"plain": self.server(place, place.http, "plain-split"), "secure": secure}},
                "tls": {"certificates": {"load_files": [certificate]}},
            },
        }
        return {"caddy.json": json.dumps(config, indent=1)}

    def server(self, place, port, name):
        """A listener that splits what comes between blue and green."""
        keep_alive = {"enabled": True, "max_idle_conns": 1024, "max_idle_conns_per_host": 512}
        proxy = {
            "@id": name,
            "handler": "reverse_proxy",
            "load_balancing": {
                "selection_policy": {"policy": "weighted_round_robin", "weights": list(place.weights)}
            },
            "transport": {"protocol": "http", "keep_alive": keep_alive},
            "upstreams": [{"dial": f"127.0.0.1:{origin}"} for origin in (place.blue, place.green)],
        }
        return {
            "listen": [f"127.0.0.1:{port}"],
            "automatic_https": {"disable": True},
            "protocols": ["h1", "h2"],
            "idle_timeout": 600_000_000_000,
            "routes": [{"handle": [proxy]}],
        }

    def arguments(self, place):
        return [self.binary, "run", "--config", f"{place.directory}/caddy.json"]

    def environment(self, place):
        home = str(place.directory)
        return {"GOMAXPROCS": str(place.workers), "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}

    def switch(self, place, blue, green):
        path = "/id/plain-split/load_balancing/selection_policy/weights"
        ask(place.admin, "PATCH", path, json.dumps([blue, green]))


class Switchback(Peer):
    """The proxy of this project, with every duty on but the access log, which no peer writes."""

    name = "switchback"
    kind = CANDIDATE
    lacks = frozenset()
    DEFAULT = install.PRODUCT / "target" / "release" / "switchback"

    def __init__(self, binary=None, name="switchback"):
        self.name = name
        self.binary = str(binary or self.DEFAULT)
        if not Path(self.binary).exists():
            raise install.MissingError(f"{self.binary} does not exist: run `cargo build --release` first")

    def files(self, place):
        head = f"""version: 1
workers: {place.workers}
admin: {{address: "127.0.0.1:{place.admin}"}}
listeners:
  web: {{address: "127.0.0.1:{place.http}"}}
  secure:
    address: "127.0.0.1:{place.https}"
    tls: {{certificates: [{{certificate: "{place.certificate}", key: "{place.key}"}}]}}
access_log: {{format: "off"}}
limits:
  keep_alive_timeout: 1200s
  header_read_timeout: 1200s
  connections: 20000
  connections_per_client: 20000
  requests_per_connection: 1000000000
"""
        return {"switchback.yaml": head + (self.fleet(place) if place.fleet else self.split(place))}

    def split(self, place):
        """One service, whose requests are split between blue and green, with the judge watching."""
        blue, green = place.weights
        return f"""routes: [{{service: shop}}]
services:
  shop:
    stable: blue
    weights: {{blue: {blue}, green: {green}}}
    backends:
      blue: {{version: "1", endpoints: ["http://127.0.0.1:{place.blue}"]}}
      green: {{version: "2", endpoints: ["http://127.0.0.1:{place.green}"]}}
    rollback: {{max_extra_errors: 1%}}
"""

    def fleet(self, place):
        """Many routes to many services of several backends, each with the same share."""
        fleet, lines = place.fleet, ["routes:"]
        for number in range(fleet.routes):
            host, path, service = fleet.route(number)
            lines.append(f"  - {{host: {host}, path: {path}, service: {service}}}")
        lines.append("services:")
        ports = (place.blue, place.green)
        for number in range(fleet.services):
            names = [f"b{n}" for n in range(fleet.backends)]
            weights = ", ".join(f"{name}: 1" for name in names)
            lines.append(f"  s{number}:\n    stable: b0\n    weights: {{{weights}}}\n    backends:")
            for backend, name in enumerate(names):
                endpoint = f"http://127.0.0.1:{ports[backend % 2]}"
                lines.append(f'      {name}: {{version: "{backend}", endpoints: ["{endpoint}"]}}')
        return "\n".join(lines) + "\n"

    def arguments(self, place):
        state = str(place.directory / "state")
        return [self.binary, "run", "--config", str(place.directory / "switchback.yaml"), "--state-dir", state]

    def switch(self, place, blue, green):
        body = {"weights": {"blue": blue, "green": green}, "reason": "compare"}
        ask(place.admin, "PUT", "/v1/services/shop/weights", json.dumps(body), self.authorization(place))

    def reload(self, place, process, text):
        replace(place.directory / "switchback.yaml", text)
        ask(place.admin, "POST", "/v1/reload", None, self.authorization(place))

    def authorization(self, place):
        """The header that the admin API asks for."""
        token = (place.directory / "state" / "admin.token").read_text().strip()
        return {"Authorization": f"Bearer {token}"}


class Floor(Peer):
    """A bare epoll forwarder (tools/floor.c): what the kernel alone costs, which no proxy can go below."""

    name = "floor"
    kind = LIMIT
    lacks = frozenset(ROWS) - {"W1", "W2", "W5", "W9", "W9t", "W10", "W13", "W14", "syscalls"}

    def __init__(self, binary=None):
        self.binary = binary or install.tool("floor")

    def files(self, place):
        return {}

    def arguments(self, place):
        tls = [str(place.https), str(place.certificate), str(place.key)]
        return [self.binary, str(place.http), *tls, str(place.blue), str(place.green), str(place.weights[1])]

    def version(self):
        return "of this checkout"


PEERS = {peer.name: peer for peer in (Nginx, Haproxy, Envoy, Traefik, Caddy, Switchback, Floor)}
