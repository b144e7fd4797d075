"""ParagonSR2: super-resolution of images and video by two paths.

Importing the package is light: PyTorch and the engines are loaded when they are first used. It
leaves the environment, the loggers and the settings of other libraries as they are.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from paragonsr2.errors import ParagonError
from paragonsr2.version import __version__

if TYPE_CHECKING:
    from paragonsr2.network.generator import (
        ParagonSR2,
        paragonsr2_photo,
        paragonsr2_pro,
        paragonsr2_realtime,
        paragonsr2_stream,
    )
    from paragonsr2.upscale.upscaler import Upscaler

__all__ = [
    "ParagonError",
    "ParagonSR2",
    "Upscaler",
    "__version__",
    "paragonsr2_photo",
    "paragonsr2_pro",
    "paragonsr2_realtime",
    "paragonsr2_stream",
]

_NETWORK = "paragonsr2.network.generator"
_HOMES = {
    "ParagonSR2": _NETWORK,
    "Upscaler": "paragonsr2.upscale.upscaler",
    "paragonsr2_photo": _NETWORK,
    "paragonsr2_pro": _NETWORK,
    "paragonsr2_realtime": _NETWORK,
    "paragonsr2_stream": _NETWORK,
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'paragonsr2' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
