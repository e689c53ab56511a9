"""A word to systemd: that the service is ready, and that it is alive. Imports next to nothing, for the fuse's sake."""

import os


class Notifier:
    """Says nothing when systemd did not ask (``NOTIFY_SOCKET``). A word that can't be sent is not sent."""

    def __init__(self) -> None:
        self._socket = None
        address = os.environ.get("NOTIFY_SOCKET", "")
        if address:
            from socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, socket

            self._socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
            self._socket.setblocking(False)
            try:
                self._socket.connect("\0" + address[1:] if address.startswith("@") else address)
            except OSError:
                self._socket = None

    def say(self, text: str) -> None:
        """For example ``READY=1``, ``WATCHDOG=1``, ``STATUS=…``."""
        if self._socket is not None:
            try:
                self._socket.send(text.encode())
            except OSError:
                return
