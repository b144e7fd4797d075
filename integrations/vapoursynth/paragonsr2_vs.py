"""Enlarge clips of VapourSynth with the bundled models, through the filters of vs-mlrt."""

from __future__ import annotations

from typing import Any

import vapoursynth as vs  # pyright: ignore[reportMissingImports]

from paragonsr2.weights.catalogue import bundled_path, find

#: Code point of an untagged colour matrix.
UNTAGGED = 2
#: Lines from which a player takes an untagged clip for HD.
HD_LINES = 720
#: What OpenVINO is told, unless the caller says more: some processors would round to bfloat16.
PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}


def enlarge(
    clip: vs.VideoNode,
    model: str = "realtime",
    scale: int = 2,
    *,
    backend: str = "ort",
    **options: Any,
) -> vs.VideoNode:
    """Enlarge ``clip`` and return it in its own format.

    Args:
        clip: YUV or RGB, of one constant format and size.
        model: a bundled model, such as ``realtime`` or ``stream:compressed``.
        scale: 2, 3, 4 or 8.
        backend: ``ort`` (ONNX Runtime), ``ov`` (OpenVINO), or ``ncnn`` (Vulkan), which opens
            Realtime and Stream but not Photo.
        options: for the filter's ``Model``, such as ``num_streams``, ``provider``, or ``tilesize``
            with ``overlap``.
    """
    if backend == "ov":
        options = {"config": lambda: PRECISE, **options}
    if clip.format.color_family == vs.GRAY:
        raise vs.Error("paragonsr2: grey clips are not supported; make an RGB clip of it")
    matrix = clip.get_frame(0).props.get("_Matrix", UNTAGGED)
    is_yuv = clip.format.color_family == vs.YUV
    if matrix == UNTAGGED:
        matrix = vs.MATRIX_BT709 if clip.height >= HD_LINES else vs.MATRIX_ST170_M
    rgb = clip.resize.Bicubic(format=vs.RGBS, matrix_in=matrix if is_yuv else None)
    filters = getattr(vs.core, backend)
    path = str(bundled_path(find(model, scale), "onnx"))
    large = filters.Model([rgb.std.Limiter()], network_path=path, **options)
    return large.resize.Bicubic(format=clip.format.id, matrix=matrix if is_yuv else None)
