"""A listening socket for a server of this machine."""

import os
import socket


def listen(host: str, port: int, again: str) -> socket.socket:
    """Listen on an address. It names its protocol, or asyncio would not set TCP_NODELAY: 40 ms for each answer.

    Raises:
        OSError: the address is taken; the text ends with `again`, what to do about it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # elsewhere it would let another program take the port over
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port} ({error.strerror}); {again}") from None
    return listener
