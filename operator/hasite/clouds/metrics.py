"""What is counted about the calls to a provider, for whoever publishes it."""

from typing import Protocol


class ApiMetrics(Protocol):
    """Told of every request that was sent, and of none that our own limiter turned away."""

    def on_call(self, endpoint: str, status: int | str, seconds: float) -> None:
        """``endpoint``: a fixed name such as ``droplets.list``; ``status``: HTTP's, or a word when no answer came."""
        ...


class NoMetrics:
    """Counts nothing."""

    def on_call(self, endpoint: str, status: int | str, seconds: float) -> None:
        """Do nothing."""
