"""Every error the package raises on purpose.

::

    ParagonError                 base; ``exit_code`` is what the command ends with
    ├── UsageError               a flag or argument cannot be used (exit 2)
    │   ├── ScaleError           scale not in 2, 3, 4, 8
    │   ├── OptionError          unknown or contradictory network option
    │   ├── TileError            tile too small for the network
    │   └── ConfigError          training configuration refused
    ├── InputError               one input cannot be read or processed (exit 1)
    │   ├── ImageError           not an image, damaged, or unreadable
    │   ├── ImageTooLargeError   more pixels than the limit allows
    │   └── RefusedError         the service does not take this request; has the HTTP status
    ├── OutputError              the result cannot be written (exit 1)
    │   └── BusyOutputError      another run is writing it
    ├── StoppedError             a job was cancelled or took too long (exit 1)
    ├── InterruptedJobError      the user interrupted a job (exit 130)
    └── EnvironmentProblem       environment or model cannot serve (exit 3)
        ├── MissingExtraError    an optional dependency is not installed
        ├── WeightsError         weights missing, damaged, unsafe or of another network
        ├── BackendError         an engine cannot run this model here
        ├── ClusterError         a cluster cannot be reached, or its machines do not fit
        ├── WrongResultError     what a model gave cannot be right
        ├── ExportError          an exported model is not the network it came from
        └── TrainingError        training cannot go on
"""

from __future__ import annotations

from typing import Any


class ParagonError(Exception):
    """Base of all errors raised on purpose. The message says what fixes it."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors go from process to process, and constructors take more than the message.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ParagonError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(ParagonError):
    """A flag or argument cannot be used."""

    exit_code = 2


class ScaleError(UsageError):
    """The networks do not support this scale."""


class OptionError(UsageError):
    """A network option is unknown, or options contradict each other."""


class TileError(UsageError):
    """The tile cannot be used with this network."""


class ConfigError(UsageError):
    """A training configuration cannot be used."""


class InputError(ParagonError):
    """One input cannot be read or processed. Other inputs are not affected."""


class ImageError(InputError):
    """The file is not an image, or it is damaged."""


class ImageTooLargeError(InputError):
    """The image has more pixels than the limit allows."""


class RefusedError(InputError):
    """The service does not take this request.

    Args:
        status: HTTP status of the answer, 4xx or 5xx.
        message: what is wrong and what mends it.
        retry_after: seconds after which the same request may succeed; None if it never will.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class OutputError(ParagonError):
    """A result cannot be written. No incomplete file is left."""


class BusyOutputError(OutputError):
    """Another run is writing the same result."""


class StoppedError(ParagonError):
    """A job was cancelled, took too long, or its server is stopping."""


class InterruptedJobError(ParagonError):
    """The user interrupted a job; the message says what is kept and how to go on."""

    exit_code = 130


class EnvironmentProblem(ParagonError):
    """The environment or the model cannot serve the request."""

    exit_code = 3


class MissingExtraError(EnvironmentProblem):
    """An optional dependency is not installed."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f'{purpose} needs an extra: pip install "paragonsr2[{extra}]"')


class WeightsError(EnvironmentProblem):
    """Weights are missing, damaged, unsafe, or belong to another network."""


class BackendError(EnvironmentProblem):
    """An engine cannot run this model here."""


class ClusterError(EnvironmentProblem):
    """A cluster cannot be reached, or its machines do not fit this one or each other."""


class WrongResultError(EnvironmentProblem):
    """The result of a model cannot be right: all one colour, or of another brightness."""


class ExportError(EnvironmentProblem):
    """An exported model differs from its network."""


class TrainingError(EnvironmentProblem):
    """Training cannot continue. The last checkpoint is intact."""
