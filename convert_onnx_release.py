"""Export a checkpoint to checked FP32 and FP16 ONNX files; the same as ``paragonsr2 export``.

Example: ``python convert_onnx_release.py --checkpoint model.safetensors --arch paragonsr2_photo
--scale 2 --output out --val_dir images``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from paragonsr2.cli.export import run_export
from paragonsr2.cli.main import exit_on_error


def main() -> None:
    """Parse the flags and export."""
    parser = argparse.ArgumentParser(
        description="Export a checkpoint to checked FP32 and FP16 ONNX files."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help=".safetensors or .pth file")
    parser.add_argument("--arch", required=True, help="expected variant, such as paragonsr2_photo")
    parser.add_argument("--scale", type=int, required=True, help="2, 3, 4 or 8")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the files and the report"
    )
    parser.add_argument("--val_dir", type=Path, help="folder of images to check with as well")
    parser.add_argument(
        "--upsampler_alpha", type=float, help="base path, if the checkpoint does not state it"
    )
    parser.add_argument("--opset", type=int, default=18, help="ONNX opset: 18 or 20")
    o = parser.parse_args()
    with exit_on_error("convert_onnx_release"):
        run_export(o.checkpoint, o.output, o.scale, o.arch, o.val_dir, o.upsampler_alpha, o.opset)


if __name__ == "__main__":
    main()
