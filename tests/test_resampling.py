"""The fixed filters: kernels, taps, and resizing of arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paragonsr2.arrays import resize
from paragonsr2.arrays.kernels import magic, magic_sharp_2021, polyphase_taps
from paragonsr2.network.base import MagicKernelSharp2021
from paragonsr2.variants import SCALES

ALPHAS = [0.0, 0.35, 1.0]


@pytest.mark.parametrize("kernel", [magic, magic_sharp_2021])
def test_kernels_are_continuous_even_and_sum_to_one(kernel):
    x = np.linspace(-6, 6, 24001)
    y = kernel(x)
    assert np.abs(np.diff(y)).max() < 2e-3
    np.testing.assert_allclose(y, y[::-1], atol=1e-12)
    for offset in (0.0, 0.13, 0.5):
        np.testing.assert_allclose(kernel(np.arange(-6, 7) + offset).sum(), 1.0, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_taps_are_trimmed(scale):
    assert polyphase_taps(scale, 0.0).shape == (scale, 3)
    assert polyphase_taps(scale, 1.0).shape == (scale, 9)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_base_keeps_constants_and_ramps(scale, alpha):
    base = MagicKernelSharp2021(scale, alpha)
    flat = torch.full((1, 3, 9, 7), 0.37)
    torch.testing.assert_close(
        base(flat), torch.full((1, 3, 9 * scale, 7 * scale), 0.37), atol=1e-6, rtol=0
    )
    ramp = torch.arange(40.0).expand(1, 3, 40, 40) / 40
    expected = ((torch.arange(40 * scale) + 0.5) / scale - 0.5) / 40
    inner = slice(6 * scale, -6 * scale)
    torch.testing.assert_close(base(ramp)[0, 0, 0, inner], expected[inner], atol=1e-5, rtol=0)


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    scale=st.sampled_from(SCALES),
    alpha=st.floats(0, 1),
)
@settings(max_examples=30, deadline=None)
def test_base_path_on_tensors_equals_magic_on_arrays(height, width, scale, alpha):
    x = np.random.default_rng(height * 13 + width).random((height, width, 3), dtype=np.float32)
    tensor = torch.from_numpy(x.transpose(2, 0, 1))[None]
    out = MagicKernelSharp2021(scale, alpha)(tensor)[0].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(out, resize.magic(x, scale, alpha), atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 1 / 3, 0.25, 2, 3, 4])
def test_bicubic_keeps_constants_and_dtype(factor):
    for dtype, value in ((np.uint8, 91), (np.uint16, 40000), (np.float32, 0.25)):
        flat = np.full((12, 24, 3), value, dtype=dtype)
        out = resize.bicubic(flat, factor)
        assert out.dtype == dtype
        assert out.shape == (round(12 * factor), round(24 * factor), 3)
        np.testing.assert_allclose(out, value, rtol=1e-6)


def test_bicubic_halves_by_the_antialiased_kernel():
    """Shrinking an impulse by 2 reads the stretched kernel off directly."""
    line = np.zeros((1, 32, 1), dtype=np.float32)
    line[0, 16] = 1.0
    out = resize.bicubic(np.repeat(line, 32, axis=0), 0.5)[8, :, 0]
    d = np.abs((2 * np.arange(16) + 0.5) - 16) / 2
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    expected = np.where(d <= 1, near, np.where(d <= 2, far, 0)) / 2
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_bicubic_rounds_between_the_passes():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 1), dtype=np.uint8)
    rows = resize.bicubic(np.repeat(image, 2, axis=1)[:, ::2], 1)
    np.testing.assert_array_equal(rows, image)
    exact = resize.bicubic(image.astype(np.float32), 0.5)
    assert np.abs(exact - resize.bicubic(image, 0.5)).max() < 1.6
