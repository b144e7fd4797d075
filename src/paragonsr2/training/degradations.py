"""Low resolution of unknown origin: blur, resizing, noise and JPEG, twice over.

Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
Synthetic Data", 2021. Each row of a batch has its own kernels and its own sizes in between, so
rows are worked on one by one; that also makes a row the same in any batch.
"""

from __future__ import annotations

import importlib
import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paragonsr2.errors import MissingExtraError
from paragonsr2.pixels.arrays import Pixels8
from paragonsr2.training.config import BlindConfig, BlindStage
from paragonsr2.training.data import Pair, Place, generator

#: Context around a crop, in low-resolution pixels, so that its border is degraded as its middle.
MARGIN = 8
#: Sides of blur kernels.
KERNEL_SIDES = tuple(range(7, 22, 2))
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
        side: odd.
        sigmas: standard deviations along its two axes, in pixels.
        angle: of the first axis, in radians.
        shape: ``gaussian`` and ``generalised`` fall as exp(-d^exponent / 2), ``plateau`` as
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


class BlindDegradation:
    """The chain, on crops and on whole pictures.

    Args:
        settings: ranges and probabilities.
        scale: of the network.

    Raises:
        MissingExtraError: kornia is not installed.
    """

    def __init__(self, settings: BlindConfig, scale: int) -> None:
        self.settings, self.scale = settings, scale
        try:
            self.filters: Any = importlib.import_module("kornia.filters")
            self.transform: Any = importlib.import_module("kornia.geometry.transform")
            self.color: Any = importlib.import_module("kornia.color")
        except ModuleNotFoundError as error:
            raise MissingExtraError("blind degradation", "train") from error

    def __call__(self, place: Place, rng: np.random.Generator) -> tuple[Pixels8, Pixels8]:
        """LR and HR of a place whose picture has :data:`MARGIN` to spare on both sides."""
        side = place.side + 2 * MARGIN
        y, x = (
            min(max(start - MARGIN, 0), length - side)
            for start, length in zip((place.y, place.x), place.picture.size, strict=True)
        )
        _, hr = place.picture.crop(y, x, side, side)
        rows = slice(place.y - y, place.y - y + place.side)
        columns = slice(place.x - x, place.x - x + place.side)
        _, wanted = place.picture.crop(place.y, place.x, place.side, place.side)
        return self.shrink(hr, rng)[rows, columns], wanted

    def whole(self, pair: Pair) -> Pair:
        """A validation picture, degraded in a way that its content decides."""
        rng = generator(int(f"0{pair.digest[:12]}", 16), 3, 0, 0)
        return replace(pair, lr=self.shrink(pair.hr, rng))

    def shrink(self, hr: Pixels8, rng: np.random.Generator) -> Pixels8:
        """Degrade ``(H, W, 3)`` uint8 to ``(H / scale, W / scale, 3)``."""
        settings = self.settings
        size = (hr.shape[0] // self.scale, hr.shape[1] // self.scale)
        x = torch.from_numpy(np.array(hr)).permute(2, 0, 1)[None].float() / 255.0
        x = self._jpeg(self._stage(x, hr.shape[:2], settings.first, rng), settings.first, rng)
        x = self._stage(x, size, settings.second, rng)
        # Pictures are resized and sharpened before they are stored, or after they were fetched.
        if rng.random() < 0.5:
            x = self._jpeg(self._last(x, size, rng), settings.second, rng)
        else:
            x = self._last(self._jpeg(x, settings.second, rng), size, rng)
        return _to_pixels(x)

    def _stage(
        self, x: Tensor, size: tuple[int, ...], stage: BlindStage, rng: np.random.Generator
    ) -> Tensor:
        """Blur, resize to a random multiple of ``size``, add noise."""
        if rng.random() < stage.blur:
            x = self._filter(x, random_kernel(stage.sigma, stage.sinc, rng))
        direction, factor = rng.random(), 1.0
        if direction < stage.enlarge:
            factor = rng.uniform(1.0, max(1.0, stage.resize[1]))
        elif direction < stage.enlarge + stage.shrink:
            factor = rng.uniform(min(1.0, stage.resize[0]), 1.0)
        x = self._resize(x, tuple(max(8, round(side * factor)) for side in size), rng)
        return self._noise(x, stage, rng)

    def _last(self, x: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        x = self._resize(x, size, rng)
        if rng.random() < self.settings.final_sinc:
            side = int(rng.choice(KERNEL_SIDES))
            x = self._filter(x, sinc_kernel(side, rng.uniform(math.pi / 3, math.pi)))
        return x.clamp(0.0, 1.0)

    def _filter(self, x: Tensor, kernel: Tensor) -> Tensor:
        # Reflection needs a picture larger than the kernel's reach, which a tiny one is not.
        border = "reflect" if min(x.shape[-2:]) > kernel.shape[-1] // 2 else "replicate"
        return self.filters.filter2d(x, kernel[None], border_type=border)

    def _resize(self, x: Tensor, size: tuple[int, ...], rng: np.random.Generator) -> Tensor:
        how = str(rng.choice(INTERPOLATIONS))
        if how == "area" and size[0] > x.shape[-2]:
            how = "bilinear"  # the area of less than a pixel is a block
        return self.transform.resize(x, size, interpolation=how, antialias=False)

    def _noise(self, x: Tensor, stage: BlindStage, rng: np.random.Generator) -> Tensor:
        grey = rng.random() < stage.grey
        if rng.random() < stage.gaussian:
            sigma = rng.uniform(*stage.noise) / 255.0
            shape = (1, 1 if grey else 3, *x.shape[-2:])
            noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) * sigma
        else:
            clean = x.clamp(0.0, 1.0)
            clean = self.color.rgb_to_grayscale(clean) if grey else clean
            rate = clean.double().numpy() * 255.0
            noise = torch.from_numpy((rng.poisson(rate) - rate) / 255.0).float()
            noise = noise * rng.uniform(*stage.poisson)
        return (x + noise).clamp(0.0, 1.0)

    def _jpeg(self, x: Tensor, stage: BlindStage, rng: np.random.Generator) -> Tensor:
        buffer = io.BytesIO()
        quality = int(rng.integers(*stage.jpeg, endpoint=True))
        Image.fromarray(_to_pixels(x)).save(buffer, "jpeg", quality=quality)
        with Image.open(buffer) as image:
            decoded = np.array(image)
        return torch.from_numpy(decoded).permute(2, 0, 1)[None].float() / 255.0


def _to_pixels(x: Tensor) -> Pixels8:
    rounded = (x[0].clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return np.ascontiguousarray(rounded.permute(1, 2, 0).numpy())
