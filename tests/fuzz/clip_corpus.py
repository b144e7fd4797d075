"""Small valid clips of several containers and codecs: what the fuzzer starts from."""

from __future__ import annotations

from pathlib import Path

from clips import irregular, make_clip, regular


def make_clip_corpus(folder: Path) -> dict[str, bytes]:
    """Valid clips by name; the suffix is the container.

    Args:
        folder: to write them in.
    """
    recipes: dict[str, dict[str, object]] = {
        "h264.mp4": {"sounds": 2, "chapters": True, "rotation": 90, "metadata": {"title": "T"}},
        "h264.mkv": {"sounds": 1, "subtitles": True, "attachment": b"font" * 64},
        "h264_444.mkv": {"pix_fmt": "yuv444p"},
        "hevc_deep.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le", "colour": (9, 16, 9, 1)},
        "ffv1.mkv": {"codec": "ffv1"},
        "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
        "mpeg4.avi": {"codec": "mpeg4"},
        "h264.ts": {"sounds": 1},
    }
    for name, recipe in recipes.items():
        stamps = regular(6) if name.endswith((".avi", ".ts")) else irregular(6)
        if name.startswith("hevc"):
            recipe["options"] = {"x265-params": "log-level=none"}
        make_clip(folder / name, stamps, **recipe)  # pyright: ignore[reportArgumentType]
    return {name: (folder / name).read_bytes() for name in recipes}
