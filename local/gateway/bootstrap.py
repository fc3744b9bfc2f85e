"""Runs inside an execution environment: imports the handler once, then handles one invocation after the other.

Started by `local.gateway.environment`, never by hand. Messages are JSON preceded by a length of four bytes, over a
socket whose number is the first argument. The process ends when its standard input is closed, which happens however its
parent ends, so a killed gateway leaves no processes behind.
"""

import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any, NoReturn, TypeAlias

LENGTH = struct.Struct(">I")
# What the gateway and this process tell each other: an invocation, or what came of it.
Message: TypeAlias = dict[str, Any]
# An exception in the form in which Lambda returns it.
Error: TypeAlias = dict[str, Any]


class Context:
    """The context object of Lambda's Python runtime, with the values that are known locally."""

    identity = None
    client_context = None

    def __init__(self, invocation: Message) -> None:
        self.aws_request_id: str = invocation["request_id"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.invoked_function_arn = f"arn:aws:lambda:local:000000000000:function:{self.function_name}"
        self._deadline = time.monotonic() + invocation["timeout"]

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def log(self, message: str) -> None:
        print(message, flush=True)


def serve(channel: socket.socket, handler_name: str) -> None:
    module_name, _, function_name = handler_name.rpartition(".")
    try:
        handler = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:
        send(channel, {"error": described(error)})
        return
    send(channel, {"ready": True})
    while (invocation := receive(channel)) is not None:
        send(channel, _invoke(handler, invocation))


def _invoke(handler: Any, invocation: Message) -> Message:
    """Run the handler. An exception is returned as an error; SystemExit and KeyboardInterrupt end the process, as in
    Lambda."""
    try:
        result = handler(invocation["event"], Context(invocation))
        json.dumps(result)
    except Exception as error:
        traceback.print_exc()
        return {"error": described(error)}
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return {"result": result}


def described(error: BaseException) -> Error:
    """An exception in the format in which Lambda returns it."""
    return {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_tb(error.__traceback__),
    }


def send(channel: socket.socket, message: Message) -> None:
    text = json.dumps(message).encode()
    channel.sendall(LENGTH.pack(len(text)) + text)


def receive(channel: socket.socket) -> Message | None:
    """The next message, or None if the other side has closed the connection."""
    head = _exactly(channel, LENGTH.size)
    text = head and _exactly(channel, LENGTH.unpack(head)[0])
    return json.loads(text) if text else None


def _exactly(channel: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = channel.recv(min(count - len(data), 1 << 20))
        if not part:
            return b""
        data += part
    return bytes(data)


def _end_with_the_parent() -> NoReturn:
    while os.read(0, 64):
        pass
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
