"""A stand-in for torchvision, so that spandrel can be imported without it.

spandrel imports a few names from torchvision for networks that neither the family nor its peers
are. torchvision's wheel does not load beside the CPU build of PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType


def stand_in() -> dict[str, ModuleType]:
    """Modules by name, with the names that spandrel looks for and nothing behind them."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: ModuleType(name) for name in names}
    vars(modules[names[-1]]).update(InterpolationMode=object, rotate=None, normalize=None)
    return modules


@contextmanager
def torchvision_names() -> Generator[None]:
    """While spandrel is imported, let it find torchvision: the real one if it loads.

    Afterwards the stand-in is gone: nothing else is to take it for the library.
    """
    try:
        import torchvision  # noqa: F401  # pyright: ignore
    except (ImportError, RuntimeError):
        modules = stand_in()
    else:
        modules = {}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
