"""A gRPC server and client over the wire format alone.

`server` prints its port and serves; `client ADDRESS` calls it through whatever is in between:
unary, server stream, and an error that is told in trailers.
"""

import sys
from concurrent import futures

import grpc

SERVICE = "test.Echo"


def echo(request, context):
    context.set_trailing_metadata((("x-trailer", "kept"),))
    return request


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


def server():
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    peer = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    peer.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = peer.add_insecure_port("127.0.0.1:0")
    peer.start()
    print(port, flush=True)
    peer.wait_for_termination()


def client(address):
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Echo")
        answer, state = call.with_call(b"hello", timeout=20)
        assert answer == b"hello", answer
        assert ("x-trailer", "kept") in [tuple(item) for item in state.trailing_metadata()]
        large = b"x" * (3 << 20)
        assert call(large, timeout=20) == large
        numbers = list(channel.unary_stream(f"/{SERVICE}/Count")(b"1000", timeout=20))
        assert numbers == [str(number).encode() for number in range(1000)], len(numbers)
        try:
            channel.unary_unary(f"/{SERVICE}/Fail")(b"", timeout=20)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error.code()
            assert error.details() == "no such thing", error.details()
        else:
            raise AssertionError("the error did not arrive")
    print("unary, stream and error arrived")


def refused(address):
    """What a client sees of a status that the proxy itself made."""
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(f"/{SERVICE}/Echo")(b"", timeout=20)
        except grpc.RpcError as error:
            print(error.code().name)


if __name__ == "__main__":
    {"server": server, "client": client, "refused": refused}[sys.argv[1]](*sys.argv[2:])
