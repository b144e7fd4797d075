"""The upscaler: pixels in, more pixels out, whatever their depth, channels or size."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from paragonsr2.arrays.convert import to_float, to_pixels
from paragonsr2.arrays.pixels import FloatNCHW, Pixels, full_scale
from paragonsr2.errors import BackendError, ImageError, OptionError, TileError
from paragonsr2.files import sha256
from paragonsr2.tensorrt.backend import open_engine
from paragonsr2.upscale.backends import (
    Backend,
    BoundedBackend,
    ClassicalBackend,
    DivisibleBackend,
    OnnxBackend,
    TorchBackend,
    load_torch_network,
    read_model,
    run_finite,
)
from paragonsr2.upscale.openvino import OpenVinoBackend
from paragonsr2.upscale.tiling import MIN_TILE, Tile, auto_tile, spans
from paragonsr2.weights.catalogue import bundled_bytes, bundled_path, find
from paragonsr2.weights.metadata import BackendName, Precision

TileOption = int | Literal["auto", "off"]

_FILE_SUFFIXES = (".onnx", ".engine", ".safetensors", ".pth", ".pt", ".ckpt")

#: Most memory that a tile's pass through the network is planned for.
TILE_BUDGET = 1 << 30

#: Most bytes of enlarged pixels that a band of tiles makes, where the network allows.
BAND = 1 << 27


def open_backend(
    model: str,
    scale: int | None,
    *,
    backend: BackendName = "auto",
    device: str = "auto",
    precision: Precision = "auto",
) -> Backend:
    """Put a model into an engine.

    Args:
        model: a bundled variant, ``bicubic``, ``magic[:ALPHA]``, or the path of an ``.onnx``,
            ``.engine``, ``.safetensors`` or ``.pth`` file.
        scale: wanted enlargement; None takes a file's own, and 2 for all others.
        backend: ``auto`` runs ONNX models in ONNX Runtime, checkpoints in PyTorch and engines
            in TensorRT.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the PyTorch backend.

    Raises:
        OptionError: no such model.
        ScaleError: the classical model does not know this scale.
        EnvironmentProblem: the weights or the engine cannot serve.
    """
    name, _, parameter = model.partition(":")
    if name in ("bicubic", "magic"):
        return _classical(name, parameter, scale or 2)
    path = Path(model)
    if path.suffix.lower() in _FILE_SUFFIXES:
        opened = _open_file(path, backend, device, precision)
        if scale is not None and opened.scale != scale:
            raise OptionError(f"{path.name} enlarges x{opened.scale}; leave --scale {scale} away")
        return opened
    entry = find(model, scale or 2)
    if backend == "tensorrt":
        raise BackendError(_ENGINES_ONLY)
    if backend == "torch":
        return _open_file(bundled_path(entry, "safetensors"), backend, device, precision)
    if backend == "openvino":
        return OpenVinoBackend(bundled_bytes(entry, "onnx"), device=device, precision=precision)
    if precision == "fp16":
        return OnnxBackend(
            bundled_bytes(entry, "onnx_fp16"),
            device=device,
            fp32=lambda: bundled_bytes(entry, "onnx"),
        )
    _require_onnx_precision(precision)
    return OnnxBackend(bundled_bytes(entry, "onnx"), device=device)


def _classical(name: str, parameter: str, scale: int) -> Backend:
    if name == "bicubic":
        if parameter:
            raise OptionError("bicubic takes no parameter")
        return ClassicalBackend(scale, None)
    try:
        alpha = float(parameter or 0.0)
    except ValueError:
        raise OptionError(f"'{parameter}' is no alpha; write magic:0.5") from None
    return ClassicalBackend(scale, alpha)


_ENGINES_ONLY = (
    "TensorRT runs engines: export the model, then paragonsr2 engine MODEL.onnx -o MODEL.engine, "
    "then --model MODEL.engine"
)


def _open_file(path: Path, backend: BackendName, device: str, precision: Precision) -> Backend:
    if path.suffix.lower() == ".engine":
        if backend not in ("auto", "tensorrt"):
            raise BackendError(f"{path.name} runs in TensorRT only; leave --backend away")
        return open_engine(path, device=device, precision=precision)
    if backend == "tensorrt":
        raise BackendError(_ENGINES_ONLY)
    if path.suffix.lower() == ".onnx":
        if backend == "torch":
            raise BackendError("PyTorch runs checkpoints, not ONNX files; leave --backend away")
        if backend == "openvino":
            return OpenVinoBackend(read_model(path), device=device, precision=precision)
        opened = OnnxBackend(path, device=device)
        if precision not in ("auto", "fp16" if opened.half else "fp32"):
            raise BackendError(f"{path.name} is not {precision}; leave --precision away")
        return opened
    if backend in ("onnxruntime", "openvino"):
        raise BackendError(f"{backend} cannot run {path.name}; paragonsr2 export makes an ONNX")
    return TorchBackend(load_torch_network(path), device=device, precision=precision)


def _require_onnx_precision(precision: Precision) -> None:
    if precision == "bf16":
        raise BackendError("ONNX models are fp32 or fp16; bf16 needs --backend torch")


class Upscaler:
    """Enlarge images with a bundled network, a model file or a classical baseline.

    Args:
        model: see :func:`open_backend`.
        scale: wanted enlargement; None takes a file's own, and 2 for all others.
        backend: ``auto``, ``onnxruntime``, ``torch``, ``openvino`` or ``tensorrt``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; more in ONNX Runtime, see
            :func:`paragonsr2.upscale.backends.providers`.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        tile: side of a tile in input pixels, ``auto`` by memory, or ``off``.

    Raises:
        ParagonError: a subclass that says what does not fit.

    Example::

        up = paragonsr2.Upscaler("realtime", scale=2)
        hr = up(lr)
    """

    def __init__(
        self,
        model: str = "realtime",
        scale: int | None = None,
        *,
        backend: BackendName = "auto",
        device: str = "auto",
        precision: Precision = "auto",
        tile: TileOption = "auto",
    ) -> None:
        self.backend = open_backend(
            model, scale, backend=backend, device=device, precision=precision
        )
        self.model = model
        self.scale = self.backend.scale
        b = self.backend
        self.automatic_tile = tile == "auto"
        if tile == "auto":
            # Copies of half-written tiles and other programs need memory too.
            budget = min(TILE_BUDGET, available_memory() // 4)
            self.tile: int | None = auto_tile(budget, b.bytes_per_pixel, b.halo, b.multiple_of)
            if isinstance(b, BoundedBackend):
                self.tile = min(self.tile, _largest_tile(b))
        elif tile == "off":
            self.tile = None
        else:
            if tile < 16:
                raise TileError(f"a tile of {tile} is too small; give --tile 16 or more")
            self.tile = tile

    @property
    def digest(self) -> str:
        """What tells this model from another: the sha256 of its file, or its name and scale.

        Raises:
            WeightsError: the file cannot be read.
        """
        path = Path(self.model)
        if path.suffix.lower() in _FILE_SUFFIXES:
            return sha256(read_model(path))
        if self.model.partition(":")[0] in ("bicubic", "magic"):
            return f"{self.model} x{self.scale}"
        return find(self.model, self.scale).files["onnx"]["sha256"]

    def divided(self, parts: int) -> Upscaler | None:
        """A twin for ``parts`` threads to use at once, each on its part of the cores.

        None where the engine gains nothing by it. Many small pictures are done sooner side by
        side than one after another with all cores on each.
        """
        if not isinstance(self.backend, DivisibleBackend):
            return None
        backend = self.backend.divided(parts)
        if backend is None:
            return None
        twin = copy.copy(self)
        twin.backend = backend
        return twin

    def __call__(
        self,
        pixels: Pixels,
        progress: Callable[[float], None] | None = None,
        *,
        tile: int | None = None,
    ) -> Pixels:
        """Enlarge one image.

        Args:
            pixels: ``(H, W, C)`` with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha, or
                ``(H, W)`` grey; uint8, uint16, or float32 nominally 0..1; straight alpha.
            progress: called with the share done, 0..1, after each tile.
            tile: side of a tile in input pixels; None for the upscaler's own.

        Returns:
            The same number of channels and dtype, ``scale`` times as large. Integers are
            clipped and rounded; float32 is neither.

        Raises:
            ImageError: the array is no image.
            BackendError: the engine failed or gave NaN.
        """
        if pixels.ndim == 2:
            return self(pixels[:, :, None], progress, tile=tile)[:, :, 0]
        _check(pixels)
        height, width, channels = pixels.shape
        opaque = channels in (2, 4) and bool((pixels[:, :, -1] == full_scale(pixels)).all())
        bands = list(
            self.strips([pixels], height, width, opaque=opaque, progress=progress, tile=tile)
        )
        return bands[0] if len(bands) == 1 else np.concatenate(bands)

    def strips(
        self,
        strips: Iterable[Pixels],
        height: int,
        width: int,
        *,
        opaque: bool = False,
        progress: Callable[[float], None] | None = None,
        tile: int | None = None,
    ) -> Iterator[Pixels]:
        """Enlarge one image strip by strip, exactly as in one piece.

        Args:
            strips: ``(rows, W, C)``, top to bottom; no more are taken than make ``height`` rows.
            height: of the image.
            width: of the image.
            opaque: there is alpha and it is full everywhere: it needs no pass of its own then,
                and stays exactly full.
            progress: told the share that is done, 0..1.
            tile: side of a tile in input pixels; None for the upscaler's own.

        Yields:
            ``(rows * scale, W * scale, C)``, not of the same rows as the strips.

        Raises:
            BackendError: the engine failed or gave NaN.
        """
        pending = iter(strips)
        window = next(pending)
        first_row = 0
        b = self.backend
        side = tile or self.tile
        columns = spans(width, side or max(width, MIN_TILE), b.halo, b.multiple_of)
        rows = spans(height, self._band_rows(height, window, side), b.halo, b.multiple_of)
        for done, y in enumerate(rows):
            missing = y.read_stop - first_row - window.shape[0]
            kept = [window[y.read_start - first_row :]]
            while missing > 0:
                kept.append(next(pending))
                missing -= kept[-1].shape[0]
            window = kept[0] if len(kept) == 1 else np.concatenate(kept)
            first_row = y.read_start
            seen = window[: y.read_stop - first_row]
            out = np.empty(
                ((y.stop - y.start) * b.scale, width * b.scale, seen.shape[2]), dtype=seen.dtype
            )
            for part, x in enumerate(columns):
                self._fill(out, seen, Tile(y, x), opaque=opaque)
                if progress is not None:
                    progress((done + (part + 1) / len(columns)) / len(rows))
            yield out

    def _band_rows(self, height: int, like: Pixels, tile: int | None) -> int:
        """Input rows of a band of tiles: fewer than the tile has where an image is very wide."""
        row_bytes = like.shape[1] * like.shape[2] * like.itemsize * self.scale**2
        most = max(BAND // row_bytes, MIN_TILE, self.backend.multiple_of)
        return min(tile, most) if tile else max(height, MIN_TILE)

    def _fill(self, out: Pixels, seen: Pixels, tile: Tile, *, opaque: bool) -> None:
        """Enlarge the rows of ``seen`` within one tile into its place in ``out``."""
        s = self.scale
        has_alpha = seen.shape[2] in (2, 4)
        given = seen[:, tile.x.read_start : tile.x.read_stop]
        if opaque:
            given = given[:, :, :-1]
        result = self._crop(self._enlarge(to_float(given), has_alpha and not opaque), tile)
        target = out[:, tile.x.start * s : tile.x.stop * s]
        target[:, :, : result.shape[1]] = to_pixels(result, seen)
        if opaque:
            target[:, :, -1] = full_scale(seen)

    def _crop(self, x: FloatNCHW, tile: Tile) -> FloatNCHW:
        s = self.scale
        top = (tile.y.start - tile.y.read_start) * s
        left = (tile.x.start - tile.x.read_start) * s
        height = (tile.y.stop - tile.y.start) * s
        width = (tile.x.stop - tile.x.start) * s
        return x[:, :, top : top + height, left : left + width]

    def _enlarge(self, x: FloatNCHW, has_alpha: bool) -> FloatNCHW:
        """Enlarge ``(1, C, H, W)`` of any C.

        Colour is weighted by alpha before and divided by it after: invisible pixels have
        arbitrary colours, which must not bleed into visible ones.
        """
        if not has_alpha:
            return self._run(x)
        alpha = x[:, -1:]
        weighted = self._run(x[:, :-1] * alpha)
        large = self._run(alpha).clip(0.0, 1.0)
        colour = weighted / np.maximum(large, np.float32(1e-3))
        return np.concatenate([colour, large], axis=1, dtype=np.float32)

    def _run(self, x: FloatNCHW) -> FloatNCHW:
        """Through the network, which is made for RGB; grey comes back as grey."""
        grey = x.shape[1] == 1
        rgb = np.repeat(x, 3, axis=1) if grey else x
        result = run_finite(self.backend, np.ascontiguousarray(rgb))
        return result.mean(axis=1, keepdims=True) if grey else result


def _largest_tile(backend: BoundedBackend) -> int:
    """The largest tile that the backend takes with all that has to be read around it."""
    # Reading may start up to multiple_of - 1 pixels before the halo.
    side = backend.max_side - 2 * backend.halo - backend.multiple_of + 1
    side -= side % max(backend.multiple_of, MIN_TILE)
    if side < MIN_TILE:
        raise TileError(
            f"{backend.name} takes {backend.max_side} pixels a side, of which a tile's "
            f"surroundings take all; build it with a larger --max"
        )
    return side


def _check(pixels: Pixels) -> None:
    kinds = ("uint8", "uint16", "float32")
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or pixels.dtype.name not in kinds:
        raise ImageError(
            f"an image is (H, W, 1..4) uint8, uint16 or float32, not {pixels.shape} {pixels.dtype}"
        )
    if 0 in pixels.shape:
        raise ImageError("the image has no pixels")


def available_memory() -> int:
    """Bytes of memory that are free, roughly."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 4 << 30
