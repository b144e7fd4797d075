"""WGSL kernels for WebGPU: the same stages for the browser, in float32.

A program becomes one JSON document: the kernels, the order and buffers in which they run, and all
weights in base64. Kernels read weights from a storage buffer, so that their text stays short.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import numpy as np

from paragonsr2.errors import ExportError
from paragonsr2.shaders.program import INPUT, Convolution, Floats, Pass, Program
from paragonsr2.shaders.stages import (
    Stage,
    assign_slots,
    four_of,
    fused,
    texels_of,
    tiled_convolution,
)

#: Threads of a workgroup, across and down.
SIDE = 8
#: Version of the document.
FORMAT = "paragonsr2-wgsl-1"

# WebGPU promises this much memory to a workgroup, in bytes.
_WORKGROUP_BYTES = 16384


def write_wgsl(program: Program) -> str:
    """Write a program as a JSON document for WebGPU.

    The document has ``format``, ``scale``, ``weights`` (float32 in base64, little endian) and
    ``stages``. Each stage has the ``code`` of a compute shader with the entry point ``main``,
    the first ``float`` of its weights and their ``count``, the buffers that it reads, in binding
    order, and the one that it writes. Buffer ``input`` holds the picture as one ``vec4f`` a pixel,
    ``output`` the enlarged picture alike; buffer ``N`` holds ``texels`` of them a pixel. Bindings
    are: 0 the size (``vec2u``, uniform), 1 the weights, 2 what is written, 3 and on what is read.

    Raises:
        ExportError: a pass has too many channels for the memory of a workgroup.
    """
    stages = fused(program)
    slots = assign_slots(stages)
    texels = {INPUT: 1} | {one.name: texels_of(one.channels) for one in program.passes}
    weights: list[Floats] = []
    described: list[dict[str, object]] = []
    first = 0
    for stage in stages:
        writer = _Writer(program, stage)
        code = writer.code()
        content = np.concatenate(writer.weights).astype("<f4")
        described.append(
            {
                "code": code,
                "first": first,
                "count": len(content),
                "reads": [slots.get(name, "input") for name in stage.sources],
                "writes": slots.get(stage.main.name, "output"),
                "texels": texels[stage.main.name],
            }
        )
        first += len(content)
        weights.append(content)
    packed = base64.b64encode(np.concatenate(weights).tobytes()).decode("ascii")
    document = {
        "format": FORMAT,
        "scale": program.scale,
        "workgroup": SIDE,
        "stages": described,
        "weights": packed,
    }
    return json.dumps(document)


class _Writer:
    """Writes one stage, and collects its weights.

    Args:
        program: the whole.
        stage: what to write.
    """

    def __init__(self, program: Program, stage: Stage) -> None:
        self.program, self.stage = program, stage
        self.channels = {one.name: one.channels for one in program.passes} | {INPUT: 3}
        self.is_last = stage.main is program.passes[-1]
        self.weights: list[Floats] = []
        self.count = 0

    def code(self) -> str:
        """The text of the kernel."""
        return "\n".join([*self._declarations(), *self._body()])

    def _store_weights(self, values: list[Floats]) -> int:
        """Keep groups of four weights; the index of the first ``vec4f``."""
        first = self.count
        self.weights += values
        self.count += len(values)
        return first

    def _declarations(self) -> Iterator[str]:
        yield "@group(0) @binding(0) var<uniform> size: vec2u;"
        yield "@group(0) @binding(1) var<storage, read> w: array<vec4f>;"
        yield "@group(0) @binding(2) var<storage, read_write> written: array<vec4f>;"
        for number, name in enumerate(self.stage.sources):
            yield f"@group(0) @binding({3 + number}) var<storage, read> m{number}: array<vec4f>;"
            texels = 1 if name == INPUT else texels_of(self.channels[name])
            yield f"fn load{number}(x: i32, y: i32, part: i32) -> vec4f {{"
            if name == INPUT:
                yield "let cx = clamp(x, 0, i32(size.x) - 1);"
                yield "let cy = clamp(y, 0, i32(size.y) - 1);"
                yield f"return m{number}[cy * i32(size.x) + cx]; }}"
            else:
                yield "if (x < 0 || y < 0 || x >= i32(size.x) || y >= i32(size.y))"
                yield "{ return vec4f(); }"
                yield f"return m{number}[(y * i32(size.x) + x) * {texels} + part]; }}"
        tiled = tiled_convolution(self.stage.main)
        if tiled is not None:
            count = texels_of(self.channels[tiled.source]) * (SIDE + 2) ** 2
            if count * 16 > _WORKGROUP_BYTES:
                raise ExportError(
                    f"{self.channels[tiled.source]} channels do not fit into the memory of a "
                    "workgroup; shaders are made of Realtime"
                )
            yield f"var<workgroup> tile: array<vec4f, {count}>;"

    def _body(self) -> Iterator[str]:
        main, before = self.stage.main, self.stage.before
        tiled = tiled_convolution(main)
        yield f"@compute @workgroup_size({SIDE}, {SIDE})"
        yield "fn main(@builtin(global_invocation_id) id: vec3u,"
        yield "@builtin(local_invocation_id) local: vec3u,"
        yield "@builtin(local_invocation_index) index: u32,"
        yield "@builtin(workgroup_id) group: vec3u) {"
        yield "let inner = vec2i(local.xy);"
        if tiled is not None:
            yield from self._fill(tiled, before)
        yield "let x = i32(id.x); let y = i32(id.y);"
        yield "if (x >= i32(size.x) || y >= i32(size.y)) { return; }"
        yield from self._sums(main, tiled)
        yield from self._store()
        yield "}"

    def _fill(self, tiled: Convolution, before: Pass | None) -> Iterator[str]:
        texels, side = texels_of(self.channels[tiled.source]), SIDE + 2
        yield f"for (var i = i32(index); i < {side * side}; i += {SIDE * SIDE}) {{"
        yield f"let x = i32(group.x) * {SIDE} - 1 + i % {side};"
        yield f"let y = i32(group.y) * {SIDE} - 1 + i / {side};"
        if before is None:
            for texel in range(texels):
                value = self._value(tiled.source, "x", "y", texel)
                yield f"tile[i * {texels} + {texel}] = {value};"
        else:
            yield "if (x < 0 || y < 0 || x >= i32(size.x) || y >= i32(size.y)) {"
            for texel in range(texels):
                yield f"tile[i * {texels} + {texel}] = vec4f();"
            yield "} else {"
            yield from self._sums(before, None)
            for texel in range(texels):
                yield f"tile[i * {texels} + {texel}] = r{texel};"
            yield "}"
        yield "}"
        yield "workgroupBarrier();"

    def _value(self, source: str, x: str, y: str, texel: int | str) -> str:
        return f"load{self.stage.sources.index(source)}({x}, {y}, {texel})"

    def _sums(self, one: Pass, tiled: Convolution | None) -> Iterator[str]:
        """The convolutions of a pass at ``x, y`` into ``r0``, ``r1``, ..."""
        texels = texels_of(one.channels)
        first = self._store_weights([four_of(one.bias, texel) for texel in range(texels)])
        for texel in range(texels):
            yield f"var r{texel} = w[{first + texel}];"
        for conv in one.convolutions:
            yield from self._convolve(conv, shared=conv is tiled)
        for texel in range(texels):
            if one.slope != 1.0:
                yield f"r{texel} = max(r{texel}, r{texel} * {one.slope:.9g});"
            for name in one.added:
                yield f"r{texel} += {self._value(name, 'x', 'y', texel)};"

    def _convolve(self, conv: Convolution, *, shared: bool) -> Iterator[str]:
        rows, columns = conv.weight.shape[2:]
        inputs = 1 if conv.source == INPUT else texels_of(self.channels[conv.source])
        yield f"for (var row = 0; row < {rows}; row++) {{"
        yield f"for (var column = 0; column < {columns}; column++) {{"
        x = f"x + (column - {columns // 2}) * {conv.dilation[1]}"
        y = f"y + (row - {rows // 2}) * {conv.dilation[0]}"
        tap = f"(row * {columns} + column)"
        place = f"((inner.y + row) * {SIDE + 2} + inner.x + column) * {inputs}"
        if conv.groups == 1:
            yield f"for (var part = 0; part < {inputs}; part++) {{"
            read = f"tile[{place} + part]" if shared else self._value(conv.source, x, y, "part")
            yield f"let v = {read};"
            yield from self._dense(conv, f"({tap} * {inputs} + part)", inputs)
            yield "}"
        else:
            yield from self._grouped(conv, x, y, tap, inputs)
        yield "}}"

    def _dense(self, conv: Convolution, index: str, inputs: int) -> Iterator[str]:
        outputs = conv.weight.shape[0]
        texels = texels_of(outputs)
        values: list[Floats] = []
        for row, column, part in np.ndindex(*conv.weight.shape[2:], inputs):
            block = conv.weight[:, 4 * part : 4 * part + 4, row, column]
            block = np.pad(block, ((0, 0), (0, 4 - block.shape[1])))
            # A matrix is given by its columns, one for each input channel.
            values += [four_of(block[:, i], out) for out in range(texels) for i in range(4)]
        first = self._store_weights(values)
        yield f"let k = {first} + {index} * {4 * texels};"
        for out in range(texels):
            rows = ", ".join(f"w[k + {4 * out + i}]" for i in range(4))
            yield f"r{out} += mat4x4f({rows}) * v;"

    def _grouped(self, conv: Convolution, x: str, y: str, tap: str, inputs: int) -> Iterator[str]:
        outputs, per_group, rows, columns = conv.weight.shape
        if per_group != 1:
            raise ExportError("a group of a convolution reads several channels: no shader")
        each, texels = outputs // conv.groups, texels_of(outputs)
        if each > 1 and each % 4:
            raise ExportError(f"a group of a convolution makes {each} channels: no shader")
        taps = np.ndindex(rows, columns)
        values = [four_of(conv.weight[:, 0, r, c], out) for r, c in taps for out in range(texels)]
        yield f"let k = {self._store_weights(values)} + {tap} * {texels};"
        for part in range(inputs):
            yield f"let v{part} = {self._value(conv.source, x, y, part)};"
        for out in range(texels):
            channel = 4 * out // each
            factor = f"v{out}" if each == 1 else f"v{channel // 4}.{'xyzw'[channel % 4]}"
            yield f"r{out} += w[k + {out}] * {factor};"

    def _store(self) -> Iterator[str]:
        texels = texels_of(self.stage.main.channels)
        if not self.is_last:
            yield f"let place = (y * i32(size.x) + x) * {texels};"
            for texel in range(texels):
                yield f"written[place + {texel}] = r{texel};"
            return
        scale = self.program.scale
        yield f"let alpha = {self._value(INPUT, 'x', 'y', 0)}.w;"
        for row in range(scale):
            for column in range(scale):
                places = [colour * scale**2 + row * scale + column for colour in range(3)]
                rgb = ", ".join(f"r{place // 4}.{'xyzw'[place % 4]}" for place in places)
                at = f"(y * {scale} + {row}) * i32(size.x) * {scale} + x * {scale} + {column}"
                yield f"written[{at}] = vec4f({rgb}, alpha);"
