"""The upscaler: pixels in, more pixels out, whatever their depth, channels or size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict, TypeVar, Unpack, cast

import numpy as np

from paragonsr2.arrays.convert import to_float, to_pixels
from paragonsr2.arrays.pixels import FloatNCHW, Pixels, full_scale
from paragonsr2.errors import ImageError
from paragonsr2.upscale.backends import Backend, DivisibleBackend, OverflowGuard
from paragonsr2.upscale.background import in_order
from paragonsr2.upscale.ensemble import averaged
from paragonsr2.upscale.kinds import enlarge_other
from paragonsr2.upscale.opening import open_model
from paragonsr2.upscale.sanity import ResultCheck
from paragonsr2.upscale.team import engines_of
from paragonsr2.upscale.tile_choice import TileOption, automatic_tile, require_tile
from paragonsr2.upscale.tiling import MIN_TILE, Span, spans
from paragonsr2.weights.hub import choose, download, is_repository
from paragonsr2.weights.metadata import BackendName, Precision
from paragonsr2.weights.source import ModelSource, resolve

Image = TypeVar("Image")

#: Most bytes of enlarged pixels that a band of tiles makes, where the network allows.
BAND = 1 << 27


class UpscalerOptions(TypedDict, total=False):
    """The options of :class:`Upscaler` beside model and scale."""

    backend: BackendName
    device: str
    precision: Precision
    tile: TileOption
    ensemble: bool
    trust_model: bool
    check_results: bool


@dataclass(frozen=True)
class EngineFacts:
    """What an upscaler is, for whoever does not hold it: reports, and work done elsewhere.

    Attributes:
        model: its name.
        scale: enlargement.
        engine: name of the engine, with device and precision.
        tile: side of a tile in input pixels; None for the whole image.
        automatic_tile: the tile was chosen by the memory of the machine.
        digest: see :attr:`Upscaler.digest`.
    """

    model: str
    scale: int
    engine: str
    tile: int | None
    automatic_tile: bool
    digest: str


class Upscaler:
    """Enlarge images with a bundled network, a model file or a classical baseline.

    Threads may share an upscaler.

    Args:
        model: a bundled variant such as ``realtime`` or ``stream:compressed``, ``bicubic``,
            ``magic[:ALPHA]``, or the path of an ``.onnx``, ``.engine``, ``.safetensors`` or
            ``.pth`` file.
        scale: wanted enlargement; None takes what a file states, and 2 for other models.
        backend: ``auto``, ``onnxruntime``, ``torch``, ``openvino`` or ``tensorrt``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, or several, ``cuda:0,cuda:1``, which
            share the work; ONNX Runtime also takes what
            :func:`paragonsr2.upscale.backends.providers` lists.
        precision: ``auto``, ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        tile: side of a tile in input pixels, from 16; ``auto`` chooses it by the available
            memory; ``off`` enlarges the whole image at once.
        ensemble: average over the eight mirror images, for a little more quality at eight times
            the cost.
        trust_model: open a model file without limits of memory, time and operators. The code in
            it never runs, trusted or not.
        check_results: refuse results that cannot be right, see
            :class:`~paragonsr2.upscale.sanity.ResultCheck`.

    Raises:
        UsageError: an argument is not one of these values, or contradicts the model.
        EnvironmentProblem: the weights cannot be used, or the engine cannot run them here.

    Example::

        up = paragonsr2.Upscaler("realtime", scale=2)
        hr = up(lr)
    """

    def __init__(
        self,
        model: str | Path = "realtime",
        scale: int | None = None,
        *,
        backend: BackendName = "auto",
        device: str = "auto",
        precision: Precision = "auto",
        tile: TileOption = "auto",
        ensemble: bool = False,
        trust_model: bool = False,
        check_results: bool = True,
    ) -> None:
        require_tile(tile)
        source = resolve(model, scale, trusted=trust_model)
        opened = open_model(source, backend=backend, device=device, precision=precision)
        self._set_up(source, opened, tile, ensemble=ensemble, check_results=check_results)

    @classmethod
    def around(
        cls,
        backend: Backend,
        *,
        name: str = "custom",
        tile: TileOption = "auto",
        ensemble: bool = False,
        check_results: bool = True,
    ) -> Self:
        """Make an upscaler of an engine that is open already.

        Args:
            backend: the engine.
            name: what to call its model.
            tile: as in the class.
            ensemble: as in the class.
            check_results: as in the class.

        Raises:
            TileError: the tile cannot be used.
        """
        require_tile(tile)
        made = cls.__new__(cls)
        source = ModelSource(name, backend.scale)
        made._set_up(source, backend, tile, ensemble=ensemble, check_results=check_results)
        return made

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        scale: int | None = None,
        *,
        filename: str | None = None,
        revision: str | None = None,
        **options: Unpack[UpscalerOptions],
    ) -> Self:
        """Make an upscaler of a bundled model, a folder, or a repository of the Hugging Face hub.

        Only a repository, ``owner/name``, is fetched from the network, and only what is not in the
        local cache.

        Args:
            name_or_path: what the class takes as ``model``, a folder with a model in it, or
                ``owner/name``.
            scale: as in the class.
            filename: of the model in the folder or repository, if there are several.
            revision: branch, tag or commit of a repository.
            options: the other options of the class.

        Raises:
            MissingExtraError: the hub is wanted, and huggingface_hub is not installed.
            WeightsError: there is no model, or there are several.
            ParagonError: as the class.
        """
        model = name_or_path
        path = Path(name_or_path)
        if path.is_dir():
            model = choose(path, filename)
        elif not path.exists() and is_repository(str(name_or_path)):
            model = choose(download(str(name_or_path), revision), filename)
        return cls(model, scale, **options)

    def _set_up(
        self,
        source: ModelSource,
        backend: Backend,
        tile: TileOption,
        *,
        ensemble: bool,
        check_results: bool,
    ) -> None:
        self.source, self.model, self.ensemble = source, source.name, ensemble
        self._check_results = check_results
        self.scale = backend.scale
        self._use(backend)
        self.automatic_tile = tile == "auto"
        if tile == "auto":
            self.tile: int | None = automatic_tile(backend)
        else:
            self.tile = None if tile == "off" else tile

    def _use(self, backend: Backend) -> None:
        self.backend = backend
        self._guard = OverflowGuard(backend)

    def __repr__(self) -> str:
        """Model, scale, engine with its device and precision, and tile."""
        return (
            f"<Upscaler {self.model} x{self.scale}, {self.backend.name}, tile {self.tile or 'off'}"
            f"{', ensemble' if self.ensemble else ''}>"
        )

    @property
    def digest(self) -> str:
        """What distinguishes this model from others: the SHA-256 of its file, or name and scale.

        Raises:
            WeightsError: the file cannot be read.
        """
        return self.source.digest

    @property
    def facts(self) -> EngineFacts:
        """What this upscaler is.

        Raises:
            WeightsError: the model file cannot be read.
        """
        return EngineFacts(
            self.model, self.scale, self.backend.name, self.tile, self.automatic_tile, self.digest
        )

    def divided(self, parts: int) -> Upscaler | None:
        """A twin for ``parts`` threads to share, each using its share of the cores.

        Many small pictures are done sooner side by side than one after another with all cores on
        each. None where the engine gains nothing by it.
        """
        if not isinstance(self.backend, DivisibleBackend):
            return None
        backend = self.backend.divided(parts)
        return None if backend is None else self.over(backend)

    def with_tile(self, tile: int | None) -> Upscaler:
        """A twin with another tile.

        Args:
            tile: side in input pixels; None for the whole image.
        """
        twin = copy.copy(self)
        twin.tile = tile
        return twin

    def over(self, backend: Backend) -> Upscaler:
        """A twin that runs the same model through another backend.

        Args:
            backend: with the scale and the tile needs of this upscaler's own.
        """
        twin = copy.copy(self)
        twin._use(backend)
        return twin

    def __call__(
        self,
        image: Image,
        progress: Callable[[float], None] | None = None,
        *,
        tile: int | None = None,
    ) -> Image:
        """Enlarge one image; the result is of the same kind, ``scale`` times as large.

        Args:
            image: one of

                - an array ``(H, W, C)`` with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and
                  alpha, or ``(H, W)`` grey; uint8, uint16, or float32 nominally 0..1; straight
                  alpha;
                - a PIL image; palettes become RGB or RGBA;
                - a PyTorch tensor ``(C, H, W)`` or ``(B, C, H, W)``, floating point nominally
                  0..1, uint8 or uint16;
                - the path of an image or video: the result is written beside it, as by the
                  command, and its path is returned.
            progress: called after each tile with the share done, 0..1.
            tile: side of a tile in input pixels; None for the upscaler's own.

        Returns:
            The same number of channels and dtype. Integers are clipped and rounded; floats are
            neither.

        Raises:
            ImageError: it is no image, or of a kind that cannot be enlarged.
            InputError: the file cannot be read or enlarged.
            OutputError: the result of a path exists or cannot be written.
            BackendError: the engine failed, or gave NaN.
            WrongResultError: the result cannot be right.
        """
        if isinstance(image, np.ndarray):
            return cast(Image, self._enlarge_array(image, progress, tile))
        return cast(Image, enlarge_other(image, self, progress, tile))

    def _enlarge_array(
        self, pixels: Pixels, progress: Callable[[float], None] | None, tile: int | None
    ) -> Pixels:
        if pixels.ndim == 2:
            return self._enlarge_array(pixels[:, :, None], progress, tile)[:, :, 0]
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
        """Enlarge one image strip by strip; the result equals that of the whole image.

        Args:
            strips: ``(rows, W, C)``, top to bottom; taken until they make ``height`` rows.
            height: of the image.
            width: of the image.
            opaque: the image has alpha, and it is full everywhere. Alpha then needs no pass of
                its own and stays exactly full.
            progress: called with the share done, 0..1.
            tile: side of a tile in input pixels; None for the upscaler's own.

        Yields:
            ``(rows * scale, W * scale, C)``; the rows need not be those of the strips.

        Raises:
            BackendError: the engine failed or gave NaN.
            WrongResultError: the result cannot be right; raised in place of its last rows.
        """
        check = ResultCheck(self.source, height, width) if self._check_results else None
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
            tiles = in_order(
                lambda x, seen=seen, y=y: self._tile(seen, y, x, opaque=opaque),
                columns,
                engines_of(b),
            )
            for part, (x, (floats, result)) in enumerate(zip(columns, tiles, strict=True)):
                if check is not None:
                    rest = seen.shape[2] in (2, 4) and not opaque
                    check.add(self._inner(floats, y, x), result, has_alpha=rest)
                self._place(out, seen, x, result, opaque=opaque)
                if progress is not None:
                    progress((done + (part + 1) / len(columns)) / len(rows))
            # Who writes a picture may not ask for more than its last rows.
            if check is not None and y is rows[-1]:
                check.finish()
            yield out

    def _band_rows(self, height: int, like: Pixels, tile: int | None) -> int:
        """Input rows of a band of tiles: fewer than a tile has if the image is very wide."""
        row_bytes = like.shape[1] * like.shape[2] * like.itemsize * self.scale**2
        most = max(BAND // row_bytes, MIN_TILE, self.backend.multiple_of)
        return min(tile, most) if tile else max(height, MIN_TILE)

    def _tile(self, seen: Pixels, y: Span, x: Span, *, opaque: bool) -> tuple[FloatNCHW, FloatNCHW]:
        """What is read for the tile at ``y``, ``x`` of the rows ``seen``, and its result."""
        given = seen[:, x.read_start : x.read_stop]
        if opaque:
            given = given[:, :, :-1]
        floats = to_float(given)
        has_alpha = seen.shape[2] in (2, 4) and not opaque
        return floats, self._crop(self._enlarge(floats, has_alpha), y, x)

    def _place(
        self, out: Pixels, seen: Pixels, x: Span, result: FloatNCHW, *, opaque: bool
    ) -> None:
        """Put the result of a tile into the rows ``out``."""
        target = out[:, x.start * self.scale : x.stop * self.scale]
        target[:, :, : result.shape[1]] = to_pixels(result, seen)
        if opaque:
            target[:, :, -1] = full_scale(seen)

    def _inner(self, floats: FloatNCHW, y: Span, x: Span) -> FloatNCHW:
        """A tile without what is read around it."""
        rows = slice(y.start - y.read_start, y.stop - y.read_start)
        return floats[:, :, rows, x.start - x.read_start : x.stop - x.read_start]

    def _crop(self, large: FloatNCHW, y: Span, x: Span) -> FloatNCHW:
        s = self.scale
        top, left = (y.start - y.read_start) * s, (x.start - x.read_start) * s
        height, width = (y.stop - y.start) * s, (x.stop - x.start) * s
        return large[:, :, top : top + height, left : left + width]

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
        """Run the network, which is made for RGB; grey comes back as grey."""
        grey = x.shape[1] == 1
        rgb = np.repeat(x, 3, axis=1) if grey else x
        if self.ensemble:
            result = averaged(self._guard.run, rgb, self.scale, self.backend.multiple_of)
        else:
            result = self._guard.run(np.ascontiguousarray(rgb))
        return result.mean(axis=1, keepdims=True) if grey else result


def _check(pixels: Pixels) -> None:
    kinds = ("uint8", "uint16", "float32")
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or pixels.dtype.name not in kinds:
        raise ImageError(
            f"an array must be (H, W, 1..4) uint8, uint16 or float32, "
            f"not {pixels.shape} {pixels.dtype}"
        )
    if 0 in pixels.shape:
        raise ImageError("the image has no pixels")
