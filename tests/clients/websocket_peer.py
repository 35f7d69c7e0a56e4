"""A WebSocket echo server and a client: text, large binary, ping, close with a reason."""

import sys

from websockets.sync.client import connect
from websockets.sync.server import serve


def echo(connection):
    for message in connection:
        if message == "goodbye":
            connection.close(4000, "as you wish")
            return
        connection.send(message)


def server():
    with serve(echo, "127.0.0.1", 0, max_size=None) as peer:
        print(peer.socket.getsockname()[1], flush=True)
        peer.serve_forever()


def client(address):
    with connect(f"ws://{address}/chat", max_size=None, proxy=None) as connection:
        for message in ("hello", b"\0" * (1 << 20), "x" * 100_000):
            connection.send(message)
            assert connection.recv(timeout=20) == message
        assert connection.ping().wait(timeout=20)
        connection.send("goodbye")
        try:
            connection.recv(timeout=20)
        except Exception:
            pass
        assert connection.close_code == 4000, connection.close_code
        assert connection.close_reason == "as you wish"
    print("messages, ping and close arrived")


if __name__ == "__main__":
    {"server": server, "client": client}[sys.argv[1]](*sys.argv[2:])
