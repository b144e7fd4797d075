"""Blind degradation: blur, resizing, noise and JPEG, twice.

Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
Synthetic Data", 2021. As there, the crops of a group share the intermediate sizes, so that they go
through the chain together; each crop has its own kernels, noise and JPEG quality.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import MissingExtraError
from paragonsr2.training.data import Pair, Place, generator
from paragonsr2.training.degradation_config import BlindConfig, BlindStage

#: Sides of blur kernels, and how far the largest reaches.
KERNEL_SIDES = tuple(range(7, 22, 2))
KERNEL_REACH = KERNEL_SIDES[-1] // 2
#: How far a bicubic resizing without antialiasing reaches, in pixels of its input.
RESIZE_REACH = 2
#: Shape of a blur kernel and whether it is as wide as high, with its probability.
SHAPES = {
    ("gaussian", True): 0.45,
    ("gaussian", False): 0.25,
    ("generalised", True): 0.12,
    ("generalised", False): 0.03,
    ("plateau", True): 0.12,
    ("plateau", False): 0.03,
}
#: Exponents of the generalised and the plateau shapes.
EXPONENTS = {"gaussian": (1.0, 1.0), "generalised": (0.5, 4.0), "plateau": (1.0, 2.0)}
INTERPOLATIONS = ("area", "bilinear", "bicubic")


def blur_kernel(
    side: int, sigmas: tuple[float, float], angle: float, shape: str, exponent: float
) -> Tensor:
    """A kernel ``(side, side)`` of sum 1.

    Args:
        side: odd number of pixels.
        sigmas: standard deviations along its two axes, in pixels.
        angle: of the first axis, in radians.
        shape: ``gaussian`` and ``generalised`` fall off as exp(-d^exponent / 2), ``plateau`` as
            1 / (1 + d^exponent), where d is the squared distance in units of ``sigmas``.
        exponent: 1 for a true Gaussian.
    """
    reach = torch.arange(side, dtype=torch.float64) - side // 2
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    distance = (along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2
    power = distance**exponent
    kernel = 1 / (1 + power) if shape == "plateau" else torch.exp(-0.5 * power)
    return (kernel / kernel.sum()).float()


def sinc_kernel(side: int, cutoff: float) -> Tensor:
    """A circular low pass ``(side, side)`` of sum 1, which rings; ``cutoff`` in 0..pi."""
    reach = torch.arange(side, dtype=torch.float64) - side // 2
    radius = torch.hypot(reach[:, None], reach[None, :])
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[side // 2, side // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).float()


def random_kernel(sigma: tuple[float, float], sinc: float, rng: np.random.Generator) -> Tensor:
    """A kernel ``(side, side)``: with probability ``sinc`` a sinc, else one of :data:`SHAPES`."""
    side = int(rng.choice(KERNEL_SIDES))
    if rng.random() < sinc:
        return sinc_kernel(side, rng.uniform(math.pi / (3 if side < 13 else 5), math.pi))
    shape, isotropic = list(SHAPES)[int(rng.choice(len(SHAPES), p=list(SHAPES.values())))]
    first = rng.uniform(*sigma)
    second = first if isotropic else rng.uniform(*sigma)
    angle = 0.0 if isotropic else rng.uniform(-math.pi, math.pi)
    return blur_kernel(side, (first, second), angle, shape, rng.uniform(*EXPONENTS[shape]))


def margin(settings: BlindConfig, scale: int) -> int:
    """Context around a crop that the chain's kernels reach, in low-resolution pixels.

    With it the border of a crop is degraded exactly as its middle is.

    Args:
        settings: the smallest sizes in between decide how far a kernel reaches.
        scale: of the network.
    """
    first, second = settings.first, settings.second
    # Sizes of a pixel at each stage, in low-resolution pixels: original, between, before the last.
    original = 1.0 / scale
    between = original / (min(1.0, first.resize[0]) if first.shrink else 1.0)
    late = 1.0 / (min(1.0, second.resize[0]) if second.shrink else 1.0)
    blurred = [(first.blur, original), (second.blur, between), (settings.final_sinc, 1.0)]
    reach = sum(KERNEL_REACH * pixel for share, pixel in blurred if share)
    for source, target in ((original, between), (between, late), (late, 1.0)):
        reach += RESIZE_REACH * source + target / 2
    return math.ceil(reach)


class BlindDegradation:
    """The chain, on groups of crops and on whole pictures.

    Args:
        settings: ranges and probabilities.
        scale: of the network.

    Raises:
        MissingExtraError: kornia is not installed.
    """

    def __init__(self, settings: BlindConfig, scale: int) -> None:
        self.settings, self.scale = settings, scale
        self.margin = margin(settings, scale)
        try:
            self.filters: Any = importlib.import_module("kornia.filters")
            self.transform: Any = importlib.import_module("kornia.geometry.transform")
            self.color: Any = importlib.import_module("kornia.color")
        except ModuleNotFoundError as error:
            raise MissingExtraError("blind degradation", "train") from error

    def __call__(
        self,
        places: Sequence[Place],
        rngs: Sequence[np.random.Generator],
        shared: np.random.Generator,
    ) -> list[tuple[Pixels8, Pixels8]]:
        """LR and HR of places of one size, in pictures larger by ``margin`` on each side."""
        side, scale = places[0].side, self.scale
        crops = [_with_margin(place, self.margin) for place in places]
        degraded = self.shrink(np.stack([hr for hr, _, _ in crops]), rngs, shared)
        return [
            (
                lr[y : y + side, x : x + side],
                hr[y * scale : (y + side) * scale, x * scale : (x + side) * scale],
            )
            for lr, (hr, y, x) in zip(degraded, crops, strict=True)
        ]

    def whole(self, pair: Pair) -> Pair:
        """A validation picture, degraded; the random numbers follow from its content."""
        rng = generator(int(f"0{pair.digest[:12]}", 16), 3, 0, 0)
        return replace(pair, lr=self.shrink(np.array(pair.hr)[None], [rng], rng)[0])

    def shrink(
        self, hr: Pixels8, rngs: Sequence[np.random.Generator], shared: np.random.Generator
    ) -> Pixels8:
        """Degrade a group.

        Args:
            hr: ``(B, H, W, 3)`` uint8.
            rngs: one per picture, for its kernels, noise and JPEG quality.
            shared: for the intermediate sizes, and whether JPEG or the last resizing comes last.

        Returns:
            ``(B, H / scale, W / scale, 3)`` uint8.
        """
        first, second = self.settings.first, self.settings.second
        size = (hr.shape[1] // self.scale, hr.shape[2] // self.scale)
        x = torch.from_numpy(hr).permute(0, 3, 1, 2).contiguous().float() / 255.0
        if self.settings.plain and shared.random() < self.settings.plain:
            small = self.transform.resize(x, size, interpolation="bicubic", antialias=True)
            return _to_pixels(_jpeg(small, second, rngs))
        x = _jpeg(self._stage(x, hr.shape[1:3], first, rngs, shared), first, rngs)
        x = self._stage(x, size, second, rngs, shared)
        # Pictures are resized and sharpened before they are stored, or after they were fetched.
        if shared.random() < 0.5:
            x = _jpeg(self._last(x, size, rngs, shared), second, rngs)
        else:
            x = self._last(_jpeg(x, second, rngs), size, rngs, shared)
        return _to_pixels(x)

    def _stage(
        self,
        x: Tensor,
        size: tuple[int, ...],
        stage: BlindStage,
        rngs: Sequence[np.random.Generator],
        shared: np.random.Generator,
    ) -> Tensor:
        """Blur, resize to a random multiple of ``size``, add noise."""
        x = self._filter(
            x,
            [
                random_kernel(stage.sigma, stage.sinc, rng) if rng.random() < stage.blur else None
                for rng in rngs
            ],
        )
        direction, factor = shared.random(), 1.0
        if direction < stage.enlarge:
            factor = shared.uniform(1.0, max(1.0, stage.resize[1]))
        elif direction < stage.enlarge + stage.shrink:
            factor = shared.uniform(min(1.0, stage.resize[0]), 1.0)
        x = self._resize(x, tuple(max(8, round(side * factor)) for side in size), shared)
        return self._noisy(x, stage, rngs)

    def _last(
        self,
        x: Tensor,
        size: tuple[int, int],
        rngs: Sequence[np.random.Generator],
        shared: np.random.Generator,
    ) -> Tensor:
        x = self._resize(x, size, shared)
        share = self.settings.final_sinc
        x = self._filter(x, [_last_sinc(rng) if rng.random() < share else None for rng in rngs])
        return x.clamp(0.0, 1.0)

    def _filter(self, x: Tensor, kernels: Sequence[Tensor | None]) -> Tensor:
        """Filter each picture with its own kernel; those without one stay as they are."""
        sides = [kernel.shape[-1] for kernel in kernels if kernel is not None]
        if not sides:
            return x
        side = max(sides)
        stack = torch.zeros(len(kernels), side, side)
        stack[:, side // 2, side // 2] = 1.0
        for row, kernel in zip(stack, kernels, strict=True):
            if kernel is not None:
                inner = slice((side - kernel.shape[-1]) // 2, (side + kernel.shape[-1]) // 2)
                row[inner, inner] = kernel
        # Reflection needs a picture larger than the kernel's reach.
        border = "reflect" if min(x.shape[-2:]) > side // 2 else "replicate"
        return self.filters.filter2d(x, stack, border_type=border)

    def _resize(self, x: Tensor, size: tuple[int, ...], rng: np.random.Generator) -> Tensor:
        how = str(rng.choice(INTERPOLATIONS))
        if how == "area" and size[0] > x.shape[-2]:
            how = "bilinear"  # enlarging by area would give blocks
        return self.transform.resize(x, size, interpolation=how, antialias=False)

    def _noisy(self, x: Tensor, stage: BlindStage, rngs: Sequence[np.random.Generator]) -> Tensor:
        clean = x.clamp(0.0, 1.0)
        greys = self.color.rgb_to_grayscale(clean)
        noise = torch.empty_like(x)
        for row, colour, grey, rng in zip(noise, clean, greys, rngs, strict=True):
            signal = grey if rng.random() < stage.grey else colour
            if rng.random() < stage.gaussian:
                sigma = rng.uniform(*stage.noise) / 255.0
                drawn = rng.standard_normal(tuple(signal.shape), dtype=np.float32) * sigma
            else:
                rate = signal.double().numpy() * 255.0
                strength = rng.uniform(*stage.poisson)
                drawn = (strength * (rng.poisson(rate) - rate) / 255.0).astype(np.float32)
            row[:] = torch.from_numpy(drawn)
        return (x + noise).clamp(0.0, 1.0)


def _with_margin(place: Place, spare: int) -> tuple[Pixels8, int, int]:
    """The original of a place with context, and where in it the place begins, in LR pixels."""
    side = place.side + 2 * spare
    y, x = (
        min(max(start - spare, 0), length - side)
        for start, length in zip((place.y, place.x), place.picture.size, strict=True)
    )
    _, hr = place.picture.crop(y, x, side, side)
    return hr, place.y - y, place.x - x


def _last_sinc(rng: np.random.Generator) -> Tensor:
    return sinc_kernel(int(rng.choice(KERNEL_SIDES)), rng.uniform(math.pi / 3, math.pi))


def _jpeg(x: Tensor, stage: BlindStage, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Store and read each picture at its own quality."""
    decoded: list[Pixels8] = []
    for pixels, rng in zip(_to_pixels(x), rngs, strict=True):
        buffer = io.BytesIO()
        quality = int(rng.integers(*stage.jpeg, endpoint=True))
        Image.fromarray(pixels).save(buffer, "jpeg", quality=quality)
        with Image.open(buffer) as image:
            decoded.append(np.array(image))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous().float() / 255.0


def _to_pixels(x: Tensor) -> Pixels8:
    """``(B, 3, H, W)`` in 0..1 as ``(B, H, W, 3)`` uint8."""
    rounded = (x.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return np.ascontiguousarray(rounded.permute(0, 2, 3, 1).numpy())
