"""Structured logs: one JSON object a line on standard error, or plain text for a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from hasite.config import LogFormat

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "settings"}
_QUIET: Final = {
    "kopf": logging.WARNING,
    # It warns that it doesn't handle signals in its thread; the main thread does.
    "kopf._core.reactor.running": logging.ERROR,
    "aiohttp.access": logging.WARNING,
    "asyncssh": logging.WARNING,
}


class JsonFormatter(logging.Formatter):
    """``logging``'s ``extra`` fields become fields of the object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure(log_format: LogFormat, level: int = logging.INFO) -> None:
    """Replaces the handlers of the root logger."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)


def flush() -> None:
    """Before the process ends without Python's own clean-up."""
    for handler in logging.getLogger().handlers:
        handler.flush()
