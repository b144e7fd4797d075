"""Logs as JSON, one object a line on stderr."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

#: The logger of the service.
LOGGER = logging.getLogger("paragonsr2.serve")


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, event, the fields given as ``fields``, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log(event: str, **fields: Any) -> None:
    """Log an event with its fields, which are JSON values."""
    LOGGER.info(event, extra={"fields": fields})


def logging_config(level: str) -> dict[str, Any]:
    """The logging of the whole process, as ``logging.config.dictConfig`` takes it.

    Args:
        level: least level of the service's own log; ``INFO`` logs each request.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {
            LOGGER.name: {"handlers": ["stderr"], "level": level, "propagate": False},
            # The guard logs each request; uvicorn reports what a client did to a connection.
            "uvicorn": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
            # It warns about every malformed form, and the answer says so already.
            "python_multipart": {"level": "CRITICAL"},
        },
    }
