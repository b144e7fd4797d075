"""How strongly a clip was compressed, by the quantiser of its blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from paragonsr2.clips.clip import MAX_FRAME_PIXELS
from paragonsr2.clips.container import decoded, main_stream, open_clip
from paragonsr2.errors import ImageError

#: Where in a clip is looked, and at how many frames there. Films begin and end with black.
_PLACES, _FRAMES = 5, 6

#: ``AVVideoEncParams``: number of blocks, their offset and size in bytes, type, QP of the frame.
_HEAD = struct.Struct("@IQQii")
#: ``AVVideoBlockParams``: place, size, and what to add to the QP of the frame.
_BLOCK = np.dtype([("place", "i4", 2), ("size", "i4", 2), ("more", "i4")])


def quantiser(path: Path, *, max_pixels: int = MAX_FRAME_PIXELS) -> float | None:
    """The mean quantiser of an H.264 clip, on the scale of clips with 8 bits.

    Args:
        path: of any file.
        max_pixels: largest frame that is looked at.

    Returns:
        The mean QP of the blocks, 0 (nothing lost) to 51; None if the file is no H.264 clip, its
        frames are too large, or none can be decoded.
    """
    try:
        with open_clip(path) as container:
            stream = main_stream(container)
            if stream.codec_context.name != "h264" or stream.width * stream.height > max_pixels:
                return None
            stream.codec_context.options = {"export_side_data": "venc_params"}
            means = [
                _mean(frame)
                for frame in _some(container, stream)
                if frame.width * frame.height <= max_pixels
            ]
    except ImageError:
        return None
    found = [mean for mean in means if mean is not None]
    return float(np.mean(found)) if found else None


def _some(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """A few frames at each of some places; of the beginning alone where there is no length."""
    duration = container.duration or 0
    for place in range(_PLACES if duration else 1):
        try:
            if place:
                container.seek(duration * place // _PLACES)
        except FFmpegError:
            return
        found = False
        for frame in islice(decoded(container, stream), _FRAMES):
            found = True
            yield frame
        if not found:
            return  # a damaged file is not read through to its end once more for each place


def _mean(frame: VideoFrame) -> float | None:
    """The mean QP of a frame's blocks, without what each bit of depth beyond 8 adds."""
    data = frame.side_data.get("VIDEO_ENC_PARAMS")
    if data is None:
        return None
    content = bytes(data)
    blocks, offset, size, _, qp = _HEAD.unpack_from(content)
    if size != _BLOCK.itemsize or not blocks:
        return None
    more = np.frombuffer(content, _BLOCK, blocks, offset)["more"]
    return float(qp + more.mean()) - 6 * (frame.format.components[0].bits - 8)
