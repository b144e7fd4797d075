"""Every error the package raises on purpose.

::

    ParagonError                 base; ``exit_code`` is what the command ends with
    ├── UsageError               a flag or argument cannot be used as given (exit 2)
    │   ├── ScaleError           scale not in 2, 3, 4, 8
    │   ├── OptionError          unknown or contradictory network option
    │   ├── TileError            tile too small for the network
    │   └── ConfigError          training configuration refused
    ├── InputError               one input cannot be read or processed (exit 1)
    │   ├── ImageError           not an image, damaged, or unreadable
    │   └── ImageTooLargeError   more pixels than the limit allows
    ├── OutputError              the result cannot be written (exit 1)
    ├── InterruptedJobError      the user interrupted a job (exit 130)
    └── EnvironmentProblem       environment or model cannot serve (exit 3)
        ├── MissingExtraError    an optional dependency is not installed
        ├── WeightsError         weights missing, damaged, unsafe or of another network
        ├── BackendError         an engine cannot run this model here
        ├── ExportError          an exported model is not the network it came from
        └── TrainingError        training cannot go on
"""

from __future__ import annotations


class ParagonError(Exception):
    """Base of all errors raised on purpose; the message says what mends it."""

    exit_code = 1


class UsageError(ParagonError):
    """A flag or argument cannot be used as given."""

    exit_code = 2


class ScaleError(UsageError):
    """The scale is not one the networks are made for."""


class OptionError(UsageError):
    """A network option is unknown, or options contradict each other."""


class TileError(UsageError):
    """The tile cannot be used with this network."""


class ConfigError(UsageError):
    """A training configuration is refused."""


class InputError(ParagonError):
    """One input cannot be read or processed; others may go on."""


class ImageError(InputError):
    """The file is no image, or a damaged one."""


class ImageTooLargeError(InputError):
    """The image has more pixels than the limit allows."""


class OutputError(ParagonError):
    """A result cannot be written; nothing was left half-written."""


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


class ExportError(EnvironmentProblem):
    """An exported model differs from the network it came from."""


class TrainingError(EnvironmentProblem):
    """Training cannot go on; the last checkpoint is intact."""
