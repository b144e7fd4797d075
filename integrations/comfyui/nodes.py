"""The nodes: load a model, and enlarge images with it in tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from spandrel import ImageModelDescriptor, ModelLoader, ModelTiling
from torch import Tensor

from paragonsr2.spandrel import install
from paragonsr2.upscale.tiling import spans
from paragonsr2.weights.catalogue import bundled_path, entries

#: Input pixels on a side of a tile if nothing else is asked for.
TILE = 512


def _folders() -> Any:
    """ComfyUI's registry of model folders; it exists only inside ComfyUI."""
    import folder_paths  # pyright: ignore[reportMissingImports]

    return folder_paths


def _bundled() -> dict[str, Path]:
    return {f"{one.model} x{one.scale}": bundled_path(one, "safetensors") for one in entries()}


class LoadParagonSR2:
    """Load a bundled model, or a checkpoint from ComfyUI's ``upscale_models`` folder."""

    RETURN_TYPES = ("UPSCALE_MODEL",)
    FUNCTION = "load"
    CATEGORY = "loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the name in ComfyUI
        """What the node shows."""
        files = _folders().get_filename_list("upscale_models")
        return {"required": {"model": ([*_bundled(), *files],)}}

    def load(self, model: str) -> tuple[ImageModelDescriptor]:
        """Return the model as ComfyUI's own upscale nodes take it."""
        install()
        path = _bundled().get(model) or _folders().get_full_path("upscale_models", model)
        found = ModelLoader().load_from_file(str(path))
        if not isinstance(found, ImageModelDescriptor):
            raise TypeError(f"{model} does not enlarge images")
        return (found.eval(),)


class UpscaleParagonSR2:
    """Enlarge images in tiles that join without seams.

    ComfyUI's own node blends overlapping tiles. This one reads as much around each tile as the
    network sees, so the result equals that of the whole image.
    """

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the name in ComfyUI
        """What the node shows."""
        tile = ("INT", {"default": TILE, "min": 0, "max": 8192, "step": 32})
        return {"required": {"model": ("UPSCALE_MODEL",), "image": ("IMAGE",), "tile": tile}}

    def upscale(self, model: ImageModelDescriptor, image: Tensor, tile: int) -> tuple[Tensor]:
        """Enlarge ``(B, H, W, 3)`` in 0..1; a tile of 0 takes the image whole."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model.to(device)
        halo = getattr(model.model, "tile_halo", 32)
        multiple = getattr(model.model, "tile_multiple", 1)
        with torch.inference_mode():
            x = image.movedim(-1, 1)
            result = torch.empty(
                len(x), 3, x.shape[2] * model.scale, x.shape[3] * model.scale, dtype=image.dtype
            )
            if not tile or model.tiling is ModelTiling.DISCOURAGED:
                tile = max(x.shape[2:])
            for rows in spans(x.shape[2], tile, halo, multiple):
                for columns in spans(x.shape[3], tile, halo, multiple):
                    part = x[..., rows.read_start : rows.read_stop,
                             columns.read_start : columns.read_stop]  # fmt: skip
                    large = model(part.to(device)).to(image)
                    top = (rows.start - rows.read_start) * model.scale
                    left = (columns.start - columns.read_start) * model.scale
                    down = slice(rows.start * model.scale, rows.stop * model.scale)
                    across = slice(columns.start * model.scale, columns.stop * model.scale)
                    height, width = down.stop - down.start, across.stop - across.start
                    result[..., down, across] = large[..., top : top + height, left : left + width]
        return (result.clamp(0, 1).movedim(1, -1),)


NODE_CLASS_MAPPINGS = {
    "LoadParagonSR2": LoadParagonSR2,
    "UpscaleParagonSR2": UpscaleParagonSR2,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LoadParagonSR2": "Load ParagonSR2",
    "UpscaleParagonSR2": "Upscale with ParagonSR2",
}
