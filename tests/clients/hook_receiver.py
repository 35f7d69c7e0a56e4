"""A receiver of hooks made of what others have written: standardwebhooks checks the signature,
cloudevents reads the event. Prints its port, then one line of JSON for each message: what it understood,
or why it refused."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from standardwebhooks import Webhook


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            Webhook(os.environ["HOOK_SECRET"]).verify(body.decode(), headers)
            event = from_structured_event(HTTPMessage(headers=headers, body=body))
            understood = {
                "id": event.get_id(),
                "source": event.get_source(),
                "type": event.get_type(),
                "subject": event.get_subject(),
                "time": event.get_time().isoformat(),
                "specversion": event.get_specversion(),
                "data": event.get_data(),
            }
            status = 204
        except Exception as error:  # noqa: BLE001
            understood = {"error": f"{type(error).__name__}: {error}"}
            status = 400
        print(json.dumps(understood), flush=True)
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
sys.exit(server.serve_forever())
