"""Ports of loopback for a test's servers."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """They were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
