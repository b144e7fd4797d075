"""The kinds of images that an upscaler takes besides arrays: paths, PIL images and tensors.

Pillow and PyTorch are optional. An image of theirs can only exist once they are loaded, so they
are looked up among the loaded modules and never imported here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paragonsr2.arrays.pixels import Pixels
from paragonsr2.errors import ImageError, InputError, OutputError

if TYPE_CHECKING:
    from paragonsr2.upscale.upscaler import Upscaler

Enlarge = Callable[[Pixels], Pixels]
Progress = Callable[[float], None]

_PIL_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
# What Pillow keeps beside the pixels and programs expect to find again.
_PIL_KEPT = ("icc_profile", "exif", "dpi")


def enlarge_other(
    image: object, upscaler: Upscaler, progress: Progress | None, tile: int | None
) -> object:
    """Enlarge anything that is not an array; the result is of the same kind.

    Raises:
        ImageError: it is no image, or of a kind that cannot be enlarged.
    """
    if isinstance(image, (str, Path)):
        return type(image)(_enlarge_file(Path(image), upscaler, progress))

    def enlarge(pixels: Pixels) -> Pixels:
        return upscaler(pixels, progress, tile=tile)

    pillow, torch = sys.modules.get("PIL.Image"), sys.modules.get("torch")
    if pillow is not None and isinstance(image, pillow.Image):
        return _enlarge_pil(pillow, image, enlarge)
    if torch is not None and isinstance(image, torch.Tensor):
        return _enlarge_tensor(torch, image, enlarge)
    raise ImageError(
        f"a {type(image).__name__} is not an image; give a NumPy array, a PIL image, "
        "a PyTorch tensor or the path of a file"
    )


def _enlarge_file(path: Path, upscaler: Upscaler, progress: Progress | None) -> Path:
    """Write the result beside ``path``, as the command does, and return where."""
    from paragonsr2.upscale.job import run_task
    from paragonsr2.upscale.naming import plan_tasks
    from paragonsr2.upscale.task import TaskProgress

    if not path.is_file():
        raise ImageError(f"there is no file {path}")
    (task,) = plan_tasks([str(path)], None, upscaler.scale)
    if task.target.exists():
        raise OutputError(f"{task.target} exists; move it away, or enlarge an array instead")

    def tell(done: TaskProgress) -> None:
        if progress is not None:
            progress(done.share)

    outcome = run_task(task, upscaler, progress=tell)
    if outcome.status != "done":
        raise InputError(outcome.message)
    if outcome.message:
        warnings.warn(f"{path}: {outcome.message}", stacklevel=4)
    return task.target


def _enlarge_pil(pillow: Any, image: Any, enlarge: Enlarge) -> Any:
    mode = image.mode
    if mode in ("1", "P", "PA"):
        transparent = mode == "PA" or "transparency" in image.info
        mode = "L" if mode == "1" else "RGBA" if transparent else "RGB"
    if mode not in _PIL_MODES:
        raise ImageError(
            f"a PIL image of mode {mode} cannot be enlarged; convert it: image.convert('RGB')"
        )
    given = np.array(image if mode == image.mode else image.convert(mode))
    result = pillow.fromarray(enlarge(given))
    result.info.update({key: image.info[key] for key in _PIL_KEPT if key in image.info})
    return result


def _enlarge_tensor(torch: Any, tensor: Any, enlarge: Enlarge) -> Any:
    """``(C, H, W)`` or ``(B, C, H, W)``, floats nominally 0..1 or unsigned integers."""
    integers = (torch.uint8, torch.uint16)
    if (
        tensor.ndim not in (3, 4)
        or tensor.shape[-3] not in (1, 2, 3, 4)
        or 0 in tensor.shape
        or not (tensor.is_floating_point() or tensor.dtype in integers)
    ):
        raise ImageError(
            "a tensor must be (C, H, W) or (B, C, H, W) with 1 to 4 channels, floating point, "
            f"uint8 or uint16, not {tuple(tensor.shape)} {tensor.dtype}"
        )
    given = tensor.detach().cpu()
    given = given.float() if given.is_floating_point() else given
    batch = given if given.ndim == 4 else given[None]
    large = [
        enlarge(np.ascontiguousarray(image.numpy().transpose(1, 2, 0))).transpose(2, 0, 1)
        for image in batch
    ]
    result = torch.from_numpy(np.ascontiguousarray(np.stack(large)))
    result = result.to(device=tensor.device, dtype=tensor.dtype)
    return result if tensor.ndim == 4 else result[0]
