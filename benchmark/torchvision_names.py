"""A stand-in for torchvision, which lets spandrel be imported without it.

spandrel imports a few names from torchvision for networks that are not used here. torchvision's
wheel does not load beside the CPU build of PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType


def stand_in() -> dict[str, ModuleType]:
    """The modules and names that spandrel imports, without any implementation."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: ModuleType(name) for name in names}
    vars(modules[names[-1]]).update(InterpolationMode=object, rotate=None, normalize=None)
    return modules


@contextmanager
def torchvision_names() -> Generator[None]:
    """Provide torchvision while spandrel is imported: the real one if it loads.

    The stand-in is removed afterwards, so that no other code takes it for the library.
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
