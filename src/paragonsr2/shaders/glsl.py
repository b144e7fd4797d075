"""GLSL user shaders for mpv and libplacebo.

Every stage becomes a compute shader in which one thread makes all channels of a pixel. Four
channels share a texel, and the texels of a pixel lie beside each other in one texture.

Source: mpv's manual, "user shaders"; libplacebo, "custom shaders (mpv .hook syntax)".
"""

from __future__ import annotations

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

#: Threads of a workgroup, across and down. Two of them fit on every GPU's multiprocessor.
SIDE = 16

# The largest shared memory that every GPU offers, in bytes.
_SHARED_BYTES = 32768


def write_glsl(program: Program, title: str) -> str:
    """Write a program as an mpv user shader.

    Args:
        program: what to compute.
        title: shown by the player, such as ``ParagonSR2 Realtime x2``.

    Returns:
        The text of the shader file.

    Raises:
        ExportError: a pass has too many channels for shared memory.
    """
    stages = fused(program)
    slots = {name: f"PSR2_{slot}" for name, slot in assign_slots(stages).items()}
    head = (
        f"// {title}. MIT licence.\n"
        "// Use: mpv --glsl-shader=FILE, or libplacebo's custom_shader_path.\n"
    )
    texts = [
        _Writer(program, stage, slots, f"{title} ({number}/{len(stages)})").text()
        for number, stage in enumerate(stages, 1)
    ]
    return head + "\n".join(texts)


class _Writer:
    """Writes one stage.

    Args:
        program: the whole.
        stage: what to write.
        slots: texture of each stored map.
        title: for the player.
    """

    def __init__(self, program: Program, stage: Stage, slots: dict[str, str], title: str) -> None:
        self.program, self.stage, self.slots, self.title = program, stage, slots, title
        self.channels = {one.name: one.channels for one in program.passes} | {INPUT: 3}
        self.is_last = stage.main is program.passes[-1]

    def text(self) -> str:
        """The header and the body of the stage."""
        return "\n".join([*self._header(), *self._declarations(), *self._body(), "}", ""])

    def _header(self) -> Iterator[str]:
        yield f"//!DESC {self.title}"
        yield "//!HOOK MAIN"
        yield "//!BIND HOOKED"
        for name in self.stage.sources:
            if name != INPUT:
                yield f"//!BIND {self.slots[name]}"
        if self.is_last:
            across = down = self.program.scale
        else:
            yield f"//!SAVE {self.slots[self.stage.main.name]}"
            across, down = _grid(self.stage.main.channels)
        yield f"//!WIDTH HOOKED.w {across} *"
        yield f"//!HEIGHT HOOKED.h {down} *"
        yield "//!COMPONENTS 4"
        # Run only where the window asks for enlargement, from about half way to the scale.
        enough = f"{0.5 * self.program.scale + 0.2:g}"
        yield f"//!WHEN OUTPUT.w HOOKED.w / {enough} > OUTPUT.h HOOKED.h / {enough} > *"
        yield f"//!COMPUTE {SIDE * across} {SIDE * down} {SIDE} {SIDE}"

    def _declarations(self) -> Iterator[str]:
        tiled = tiled_convolution(self.stage.main)
        if tiled is not None:
            texels, side = texels_of(self.channels[tiled.source]), SIDE + 2
            if texels * side * side * 16 > _SHARED_BYTES:
                raise ExportError(
                    f"{self.channels[tiled.source]} channels do not fit into the shared memory "
                    "of a GPU; shaders are made of Realtime"
                )
            yield f"shared vec4 tile[{texels}][{side}][{side}];"
        for name in self.stage.sources:
            yield from self._load(name)
        if self.stage.before is not None:
            yield f"void before(ivec2 p, out vec4 r[{texels_of(self.stage.before.channels)}]) {{"
            yield from self._sums(self.stage.before, "r", None)
            yield "}"

    def _load(self, name: str) -> Iterator[str]:
        """A function that reads four channels of a map at a pixel."""
        if name == INPUT:
            yield "vec4 load_input(ivec2 p) {"
            yield "p = clamp(p, ivec2(0), ivec2(HOOKED_size) - 1);"
            yield "return HOOKED_tex((vec2(p) + 0.5) * HOOKED_pt);"
            yield "}"
            return
        slot, (across, down) = self.slots[name], _grid(self.channels[name])
        yield f"vec4 load_{slot}(ivec2 p, ivec2 part) {{"
        yield f"ivec2 size = ivec2({slot}_size) / ivec2({across}, {down});"
        yield "if (any(lessThan(p, ivec2(0))) || any(greaterThanEqual(p, size))) return vec4(0);"
        yield f"return texelFetch({slot}_raw, p * ivec2({across}, {down}) + part, 0);"
        yield "}"

    def _body(self) -> Iterator[str]:
        stage, main = self.stage, self.stage.main
        yield "void hook() {"
        yield "ivec2 p = ivec2(gl_GlobalInvocationID.xy);"
        tiled = tiled_convolution(main)
        if tiled is not None:
            yield from self._fill(tiled.source, stage.before)
        yield f"vec4 r[{texels_of(main.channels)}];"
        yield from self._sums(main, "r", tiled)
        yield from self._store()

    def _fill(self, source: str, before: Pass | None) -> Iterator[str]:
        """Fill shared memory with the workgroup's pixels and one more around them."""
        texels, side = texels_of(self.channels[source]), SIDE + 2
        yield f"ivec2 corner = ivec2(gl_WorkGroupID.xy) * {SIDE} - 1;"
        yield "for (int i = int(gl_LocalInvocationIndex); "
        yield f"i < {side * side}; i += {SIDE * SIDE}) {{"
        yield f"ivec2 at = ivec2(i % {side}, i / {side});"
        yield "ivec2 q = corner + at;"
        if before is not None:
            yield f"vec4 found[{texels}];"
            yield "bool inside = all(greaterThanEqual(q, ivec2(0)))"
            yield "&& all(lessThan(q, ivec2(HOOKED_size)));"
            yield "if (inside) before(q, found);"
            for texel in range(texels):
                yield f"tile[{texel}][at.y][at.x] = inside ? found[{texel}] : vec4(0);"
        else:
            for texel in range(texels):
                value = self._value(source, "q", texel)
                yield f"tile[{texel}][at.y][at.x] = {value};"
        yield "}"
        yield "barrier();"

    def _value(self, source: str, place: str, texel: int) -> str:
        """An expression for four channels of a stored map at a pixel."""
        if source == INPUT:
            return f"load_input({place})"
        across = _grid(self.channels[source])[0]
        return f"load_{self.slots[source]}({place}, ivec2({texel % across}, {texel // across}))"

    def _sums(self, one: Pass, result: str, tiled: Convolution | None) -> Iterator[str]:
        """The convolutions of a pass at pixel ``p``, its activation and its sums."""
        texels = texels_of(one.channels)
        for texel in range(texels):
            yield f"{result}[{texel}] = {_vector(four_of(one.bias, texel))};"
        yield "vec4 v;"
        for conv in one.convolutions:
            yield from self._convolve(conv, result, shared=conv is tiled)
        for texel in range(texels):
            value = f"{result}[{texel}]"
            if one.slope != 1.0:
                yield f"{value} = max({value}, {value} * {_number(one.slope)});"
            for name in one.added:
                yield f"{value} += {self._value(name, 'p', texel)};"

    def _convolve(self, conv: Convolution, result: str, *, shared: bool) -> Iterator[str]:
        _, _, rows, columns = conv.weight.shape
        for row in range(rows):
            for column in range(columns):
                down = (row - rows // 2) * conv.dilation[0]
                across = (column - columns // 2) * conv.dilation[1]
                for texel in range(texels_of(self.channels[conv.source])):
                    lines = list(_products(conv, row, column, texel, result))
                    if not lines:
                        continue
                    if shared:
                        x = f"gl_LocalInvocationID.x + {1 + across}"
                        y = f"gl_LocalInvocationID.y + {1 + down}"
                        yield f"v = tile[{texel}][{y}][{x}];"
                    else:
                        place = f"p + ivec2({across}, {down})"
                        yield f"v = {self._value(conv.source, place, texel)};"
                    yield from lines

    def _store(self) -> Iterator[str]:
        main = self.stage.main
        if not self.is_last:
            across, down = _grid(main.channels)
            for texel in range(texels_of(main.channels)):
                part = f"ivec2({texel % across}, {texel // across})"
                yield f"imageStore(out_image, p * ivec2({across}, {down}) + {part}, r[{texel}]);"
            return
        scale = self.program.scale
        yield "float alpha = load_input(p).a;"
        for y in range(scale):
            for x in range(scale):
                places = [colour * scale**2 + y * scale + x for colour in range(3)]
                rgb = ", ".join(f"r[{place // 4}].{'xyzw'[place % 4]}" for place in places)
                yield f"imageStore(out_image, p * {scale} + ivec2({x}, {y}), vec4({rgb}, alpha));"


def _products(conv: Convolution, row: int, column: int, texel: int, result: str) -> Iterator[str]:
    """What four input channels, in ``v``, add to the result at one tap."""
    outputs, per_group = conv.weight.shape[:2]
    weight = conv.weight[:, :, row, column]
    if conv.groups == 1:
        part = weight[:, 4 * texel : 4 * texel + 4]
        for out in range(texels_of(outputs)):
            # GLSL's matrices are given by columns, one for each input channel.
            columns = [four_of(part[:, i], out) for i in range(part.shape[1])]
            columns += [np.zeros(4, np.float32)] * (4 - len(columns))
            numbers = ",".join(_number(value) for one in columns for value in one)
            yield f"{result}[{out}] += mat4({numbers}) * v;"
        return
    if per_group != 1:
        raise ExportError("a grouped convolution with several inputs a group cannot be a shader")
    each = outputs // conv.groups
    if each == 1:
        yield f"{result}[{texel}] += {_vector(four_of(weight[:, 0], texel))} * v;"
        return
    for channel in range(4 * texel, min(4 * texel + 4, conv.groups)):
        for out in range(channel * each // 4, -(-(channel + 1) * each // 4)):
            values = np.zeros(4 * texels_of(outputs), np.float32)
            values[channel * each : (channel + 1) * each] = weight[
                channel * each : (channel + 1) * each, 0
            ]
            component = "xyzw"[channel % 4]
            yield f"{result}[{out}] += {_vector(four_of(values, out))} * v.{component};"


def _grid(channels: int) -> tuple[int, int]:
    """How the texels of a pixel lie beside each other: across and down."""
    texels = texels_of(channels)
    across = 2 if texels > 1 else 1
    return across, -(-texels // across)


def _vector(values: Floats) -> str:
    return f"vec4({','.join(_number(value) for value in values)})"


def _number(value: float) -> str:
    """A short literal: four digits are finer than the half floats that textures hold."""
    text = f"{value:.4g}".replace("e-0", "e-")
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    return sign + (digits.removeprefix("0") if digits.startswith("0.") else digits)
