"""The processor's instructions that x264 may use, so that equal frames become equal bytes."""

from __future__ import annotations

from functools import cache

import numpy as np

#: NumPy's names of AVX-512 as x264 uses it; the first is that of NumPy 2.4.
_AVX512 = {"X86_V4", "AVX512_SKX"}


@cache
def x264_instructions() -> dict[str, str]:
    """Settings of x264 that leave out AVX-512; empty where the processor has none.

    The macroblock tree of x264 in AVX-512 counts eight blocks at a time and reads past the last of
    a row. What happens to lie there, in memory that nobody wrote, changes the quantisers: the same
    frames become other bytes. Each processor with AVX-512 has AVX2, whose code stays in the row.
    """
    found: dict[str, list[str]] = np.show_config(mode="dicts")["SIMD Extensions"]  # pyright: ignore
    return {"asm": "AVX2"} if _AVX512 & set(found.get("found", ())) else {}
