"""The errors of HASite: one small tree in which each class says what its catcher may do next.

Drivers translate the errors of the libraries below them into these at their edge; nothing above a driver
ever sees an exception of pydo, asyncssh, dnspython or the Kubernetes client.
"""


class HasiteError(Exception):
    """Everything that HASite raises on purpose. ``str(error)`` may be shown to a person as it is."""


class Transient(HasiteError):
    """It did not happen and may succeed later: try again, after ``retry_after`` seconds when that is known."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(Transient):
    """No answer from the other side: nothing may be concluded about its state."""


class RateLimited(Transient):
    """Turned away by a limit of the provider's or by our own head-room below it."""


class Conflict(Transient):
    """The object changed since it was read: observe again, then decide again."""


class ForbiddenByKubernetes(Transient):
    """The API server refused our credentials, or they lack a right there. Roles can be repaired while we wait, and it
    says nothing about a provider's credentials: see ``Unauthorized``."""


class LeadershipLost(Transient):
    """This process may not act any more. Nothing was done."""


class Permanent(HasiteError):
    """Trying again cannot help: a person must act. ``reason`` is CamelCase, for a condition."""

    def __init__(self, message: str, reason: str = "Failed") -> None:
        super().__init__(message)
        self.reason = reason


class HostKeyMismatch(Permanent):
    """The machine at an address is not the one that we know: nothing may be sent to it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="HostKeyMismatch")


class Unauthorized(Permanent):
    """A provider or a machine refused the credentials, or they lack a right."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="Unauthorized")


class Unclear(HasiteError):
    """It may or may not have happened: look before it is repeated."""
