"""How far from hard edges the bundled models disturb a flat background.

    python tools/measure_overshoot.py [--causes]

Enlarges clean graphics (text, circles, grids; smoothed and hard edges) on a flat ground with every
bundled float32 model and writes ``results/quality/overshoot.json``: the largest deviation of the
ground, in 8-bit levels, by distance from the nearest edge. ``--causes`` also takes parts of the
models away to find where the deviation comes from.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from paragonsr2.arrays.convert import to_float
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import shrink
from paragonsr2.training.drawn import font_folder
from paragonsr2.weights.store import load_checkpoint

ROOT = Path(__file__).parent.parent
FILES = ROOT / "src" / "paragonsr2" / "weights" / "files"
RESULT = ROOT / "results" / "quality" / "overshoot.json"

#: Distances from an edge, in output pixels, beyond which the ground should be flat, by scale.
BEYOND = {2: (3, 6), 3: (3, 9), 4: (3, 12), 8: (3, 24)}
#: Size of a graphic, in low-resolution pixels, and of the flat border around its ink.
WIDTH, HEIGHT, BORDER = 160, 112, 32

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Network = Callable[[Pixels], Values]


@dataclass(frozen=True, eq=False)
class Graphic:
    """A picture of ink on flat ground.

    Attributes:
        name: what it shows.
        pixels: RGB ``(H, W, 3)``.
        ground: colour of the ground.
    """

    name: str
    pixels: Pixels
    ground: int


@functools.cache
def graphics(factor: int = 1) -> tuple[Graphic, ...]:
    """Text, circles and grids, each with smoothed and with hard edges.

    Args:
        factor: how many times larger than low resolution they are drawn.
    """
    found: list[Graphic] = []
    for ink, ground in ((0, 255), (230, 25)):
        for smooth in (True, False):
            for kind in (_text, _circle, _grid):
                image = Image.new("L", (WIDTH * factor, HEIGHT * factor), ground)
                kind(image, ink, smooth, factor)
                edges = "smoothed" if smooth else "hard"
                name = f"{kind.__name__[1:]}, {edges} edges, {ink} on {ground}"
                found.append(Graphic(name, np.asarray(image.convert("RGB")), ground))
    return tuple(found)


def _text(image: Image.Image, ink: int, smooth: bool, factor: int) -> None:
    pen = ImageDraw.Draw(image)
    pen.fontmode = "L" if smooth else "1"
    for row, (font, size) in enumerate((("DejaVuSans", 12), ("DejaVuSerif", 16))):
        face = ImageFont.truetype(str(font_folder() / f"{font}.ttf"), size * factor)
        place = (BORDER * factor, (BORDER + 22 * row) * factor)
        pen.text(place, "Hamburger", fill=ink, font=face)


def _circle(image: Image.Image, ink: int, smooth: bool, factor: int) -> None:
    fine = 8 if smooth else 1
    large = image.resize((image.width * fine, image.height * fine))
    middle, radius = (WIDTH * factor * fine // 2, HEIGHT * factor * fine // 2), 20 * factor * fine
    ImageDraw.Draw(large).circle(middle, radius, fill=ink)
    image.paste(large.resize(image.size, Image.Resampling.BOX))


def _grid(image: Image.Image, ink: int, smooth: bool, factor: int) -> None:
    pen = ImageDraw.Draw(image)
    left, right = BORDER * factor, (WIDTH - BORDER) * factor
    top, bottom = BORDER * factor, (HEIGHT - BORDER) * factor
    shade = (ink + 255 * (ink < 128)) // 2 if smooth else ink
    for x in range(left, right + 1, 24 * factor):
        pen.rectangle((x, top, x + factor - 1, bottom), fill=ink)
        if smooth:  # a line between two columns of pixels
            pen.rectangle((x + factor, top, x + 2 * factor - 1, bottom), fill=shade)
    for y in range(top, bottom + 1, 24 * factor):
        pen.rectangle((left, y, right, y + factor - 1), fill=ink)


@functools.cache
def distances(graphic: Graphic, scale: int, most: int) -> npt.NDArray[np.int64]:
    """Distance of each output pixel from the nearest ink, in whole output pixels, up to ``most``.

    Args:
        graphic: whose ink counts.
        scale: output pixels per pixel of the graphic.
        most: distances beyond this are ``most + 1``.
    """
    ink = (graphic.pixels != graphic.ground).any(axis=2).repeat(scale, 0).repeat(scale, 1)
    near = Image.fromarray(ink.astype(np.uint8) * 255)
    found = np.where(ink, 0, most + 1).astype(np.int64)
    for distance in range(1, most + 1):
        near = near.filter(ImageFilter.MaxFilter(3))
        found[(np.asarray(near) > 0) & (found > distance)] = distance
    return found


def deviations(network: Network, graphic: Graphic, scale: int, *, shrunk: bool) -> list[float]:
    """Largest deviation of the ground at each distance from an edge, from 1 on, in levels.

    Args:
        network: from low-resolution pixels to output values in 0..255.
        graphic: at low resolution, or at output size if ``shrunk``.
        scale: of the network.
        shrunk: shrink the graphic by the protocol first, as the photographs of training are.
    """
    most = max(BEYOND[scale]) + 4
    output = network(shrink(graphic.pixels, scale) if shrunk else graphic.pixels)
    away = distances(graphic, 1 if shrunk else scale, most)
    off = np.abs(output - graphic.ground).max(axis=2)
    return [float(off[away == distance].max()) for distance in range(1, most + 2)]


class Model:
    """A bundled model, or what is left of it when parts are taken away.

    Args:
        model: as loaded.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        makers = {node.output[0]: node for node in graph.node}
        # The last two nodes are the sum and a shuffle; where each path has a shuffle of its own,
        # as in networks that enlarge in steps, the sum is the last.
        add = next(node for node in reversed(graph.node) if node.op_type == "Add")

        def reads_the_picture(name: str) -> bool:
            maker = makers[name]
            if maker.op_type == "Conv":
                return _attribute(maker, "group") == 3  # one per colour
            return maker.op_type == "DepthToSpace" and reads_the_picture(maker.input[0])

        base = next(name for name in add.input if reads_the_picture(name))
        detail = next(name for name in add.input if name != base)
        for name in (base, detail):
            graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.names = ["output", base, detail]
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def parts(self, pixels: Pixels) -> tuple[Values, Values, Values]:
        """Output, base and detail of ``(H, W, 3)`` pixels, in levels."""
        x = pixels.astype(np.float32).transpose(2, 0, 1)[None] / 255.0
        output, *paths = self.session.run(self.names, {"input": x})
        base, detail = (_shuffled(path) for path in paths)
        whole = 255.0 * output[0].transpose(1, 2, 0).clip(0.0, 1.0)
        return whole, 255.0 * base.clip(0.0, 1.0), 255.0 * detail

    def __call__(self, pixels: Pixels) -> Values:
        """The output alone."""
        return self.parts(pixels)[0]

    def base(self, pixels: Pixels) -> Values:
        """The base alone."""
        return self.parts(pixels)[1]


def _shuffled(x: Values) -> Values:
    """``(1, 3 * s * s, h, w)`` as ``(h * s, w * s, 3)``; s may be 1."""
    _, channels, height, width = x.shape
    scale = round((channels / 3) ** 0.5)
    split = x[0].reshape(3, scale, scale, height, width).transpose(3, 1, 4, 2, 0)
    return split.reshape(height * scale, width * scale, 3)


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next(onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)


def without_context(model: onnx.ModelProto) -> None:
    """Take away what the body's wide convolutions gather, in place.

    Lines (a row or a column of taps, of Realtime) become the identity that they were trained from;
    the square ones (of Stream) keep the sum of their taps at the centre, so that flat areas stay.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Conv" or _attribute(node, "group") in (1, 3):
            continue
        kernel = numpy_helper.to_array(weights[node.input[1]])
        rows, columns = kernel.shape[2:]
        if max(rows, columns) < 7:
            continue
        line = min(rows, columns) == 1
        middle = np.zeros_like(kernel)
        middle[:, :, rows // 2, columns // 2] = 1.0 if line else kernel.sum(axis=(2, 3))
        weights[node.input[1]].CopyFrom(numpy_helper.from_array(middle, node.input[1]))
        if line:
            bias = weights[node.input[2]]
            zero = np.zeros_like(numpy_helper.to_array(bias))
            bias.CopyFrom(numpy_helper.from_array(zero, bias.name))


def bundled() -> list[Path]:
    """The bundled float32 files that are to be faithful."""
    kinds = ("fidelity", "compressed")
    return sorted(path for kind in kinds for path in FILES.glob(f"*_{kind}_fp32.onnx"))


def scale_of(model: onnx.ModelProto) -> int:
    """The scale in a model's metadata."""
    return next(int(entry.value) for entry in model.metadata_props if entry.key == "scale")


def worst(network: Network, scale: int, *, shrunk: bool = False) -> dict[str, Any]:
    """The largest deviations over all graphics, and the graphic that has the largest."""
    found = {
        graphic.name: deviations(network, graphic, scale, shrunk=shrunk)
        for graphic in graphics(scale if shrunk else 1)
    }
    by_distance = np.max(list(found.values()), axis=0)
    result: dict[str, Any] = {
        f"beyond_{beyond}": round(float(by_distance[beyond:].max()), 1) for beyond in BEYOND[scale]
    }
    first = BEYOND[scale][0]
    result["worst_graphic"] = max(found, key=lambda name: max(found[name][first:]))
    result["by_graphic"] = {
        name: round(float(max(values[first:])), 1) for name, values in found.items()
    }
    result["by_distance"] = [round(float(value), 1) for value in by_distance]
    return result


def causes(scale: int, load: Callable[[], onnx.ModelProto]) -> dict[str, Any]:
    """The deviation with parts of the model taken away."""
    whole, narrow = Model(load()), load()
    without_context(narrow)

    def surrounded(pixels: Pixels) -> Values:
        wide = np.pad(pixels, ((40, 40), (40, 40), (0, 0)), mode="edge")
        edge = 40 * scale
        return whole(wide)[edge:-edge, edge:-edge]

    parts: dict[str, Network] = {
        "whole": whole,
        "base alone": whole.base,
        "without the wide convolutions": Model(narrow),
        "more ground around the picture": surrounded,
    }
    kept = (*(f"beyond_{beyond}" for beyond in BEYOND[scale]), "worst_graphic")
    found: dict[str, Any] = {}
    for name, part in parts.items():
        result = worst(part, scale)
        found[name] = {key: result[key] for key in kept}
    result = worst(whole, scale, shrunk=True)
    found["graphics drawn large and shrunk, as in training"] = {key: result[key] for key in kept}
    return found


def checkpoint(path: Path) -> tuple[int, Network]:
    """Scale and network of a PyTorch checkpoint."""
    network = load_checkpoint(path).network.collapse()

    def enlarge(pixels: Pixels) -> Values:
        with torch.no_grad():
            output = network(torch.from_numpy(to_float(pixels)))
        return 255.0 * output[0].permute(1, 2, 0).clamp(0.0, 1.0).numpy()

    return network.scale, enlarge


def measured(path: Path, *, parts: bool) -> dict[str, Any]:
    """The entry of one file in the result."""
    if path.suffix == ".safetensors":
        scale, network = checkpoint(path)
        return {"scale": scale, **worst(network, scale)}
    model = onnx.load(path)
    scale = scale_of(model)
    found = {"scale": scale, **worst(Model(model), scale)}
    if parts:
        found["causes"] = causes(scale, functools.partial(onnx.load, path))
    return found


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--causes", action="store_true", help="take parts of the models away")
    parser.add_argument(
        "--also", type=Path, nargs="*", default=[], help="other ONNX files or checkpoints"
    )
    options = parser.parse_args()
    files: dict[str, Any] = {}
    for path in [*bundled(), *options.also]:
        files[path.name] = measured(path, parts=options.causes)
        print(path.name, files[path.name], flush=True)
    what = (
        "largest deviation of a flat ground from its colour, in 8-bit levels, beyond a distance "
        "from the nearest edge in output pixels"
    )
    write_result(RESULT, {"what": what, "files": files})


if __name__ == "__main__":
    main()
