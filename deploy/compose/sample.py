"""A service to try switchback with: says which version it is. FAIL_EVERY=3 lets one request in three fail."""

import itertools
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = os.environ.get("VERSION", "1")
FAIL_EVERY = int(os.environ.get("FAIL_EVERY", "0"))
COUNT = itertools.count(1)


class Sample(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is two small writes; neither is to wait for the other.
    disable_nagle_algorithm = True

    def do_GET(self):
        is_health = self.path == "/healthz"
        fails = not is_health and FAIL_EVERY and next(COUNT) % FAIL_EVERY == 0
        body = f"version {VERSION}{' is broken' if fails else ''}\n".encode()
        self.send_response(500 if fails else 200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000")))
    server = ThreadingHTTPServer(address, Sample)
    print(f"version {VERSION} on port {server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
