"""Hard edges: the bundled files leave a flat ground flat, beyond a few pixels from the ink."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

from conftest import ROOT
from paragonsr2.arrays.kernels import polyphase_taps

sys.path.append(str(ROOT / "tools"))
from measure_overshoot import Graphic, Model, bundled, distances, graphics, scale_of, worst

#: Largest deviation of the ground, in 8-bit levels, and the distance from which it is asked for, in
#: output pixels, by scale.
LIMIT, BEYOND = 3.0, {2: 6, 3: 9, 4: 12, 8: 24}


@pytest.mark.parametrize("path", bundled(), ids=lambda path: path.stem)
def test_the_ground_around_hard_edges_stays_flat(path):
    model = onnx.load(path)
    scale = scale_of(model)
    found = worst(Model(model), scale)
    assert found[f"beyond_{BEYOND[scale]}"] <= LIMIT


def test_distances_are_those_of_the_nearest_ink():
    pixels = np.full((9, 12, 3), 255, np.uint8)
    pixels[4, 5] = 0
    found = distances(Graphic("dot", pixels, 255), 2, 4)
    assert found.shape == (18, 24)
    assert (found[8:10, 10:12] == 0).all()
    assert (found[8, 7], found[8, 12], found[3, 10], found[4, 6]) == (3, 1, 5, 4)


def test_graphics_have_both_kinds_of_edges_and_a_flat_border():
    for factor in (1, 2):
        for graphic in graphics(factor):
            border = graphic.pixels.copy()
            border[8 * factor : -8 * factor, 8 * factor : -8 * factor] = graphic.ground
            assert (border == graphic.ground).all()
            levels = np.unique(graphic.pixels)
            assert len(levels) == 2 if "hard" in graphic.name else len(levels) > 2


def test_the_base_path_of_a_bundled_file_is_the_magic_kernel():
    path = next(path for path in bundled() if "realtime_x2" in path.name)
    pixels = np.full((24, 24, 3), 255, np.uint8)
    pixels[:, 12:] = 0
    row = Model(onnx.load(path)).base(pixels)[20, :, 0]
    taps = polyphase_taps(2, 0.0)
    wide = np.pad(pixels[0, :, 0].astype(float), 1, mode="edge")
    expected = [wide[x // 2 : x // 2 + 3] @ taps[x % 2] for x in range(48)]
    np.testing.assert_allclose(row, expected, atol=1e-3)
