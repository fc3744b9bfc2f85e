"""A listening socket for a local server."""

import os
import socket


def listen(host: str, port: int, again: str) -> socket.socket:
    """Listen on a host and port. The socket names its protocol; otherwise asyncio would not set TCP_NODELAY, which
    costs 40 ms per response.

    Raises:
        OSError: the port is in use; the text ends with `again`, which says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # on other systems it would let another program take over the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port} ({error.strerror}); {again}") from None
    return listener
