"""Digests of a fixed set of outputs: proof that a change of the code changed no result.

    python tools/output_digests.py --data ../shared/data -o before.json     # at the old commit
    python tools/output_digests.py --data ../shared/data --against before.json

The set: a picture in every format and depth, a tiled picture, a clip, an exported network and a
short training run. Each digest is of what the file holds: of a checkpoint and an ONNX file that
leaves out the version that wrote it. The second call exits with 1 if any digest differs.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
CLIP_FRAMES = 12

TRAINING = """
[network]
variant = "stream"
scale = 2
[data]
train = ["pictures"]
val = "pictures"
patch = 16
batch = 2
[schedule]
steps = 6
warmup = 2
optimizer = "muon"
[run]
output = "run"
device = "cpu"
threads = 1
validate_every = 3
"""


def command(folder: Path, *arguments: str) -> None:
    """Run one ``paragonsr2`` command of this checkout in ``folder``."""
    subprocess.run(
        [sys.executable, "-m", "paragonsr2", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def make_inputs(folder: Path, data: Path) -> None:
    """Crops of the validation pictures in every format, and a clip."""
    (folder / "pictures").mkdir()
    for source in sorted((data / "val").glob("*.png"))[:3]:
        crop = np.asarray(Image.open(source).convert("RGB"))[100:196, 80:208]
        Image.fromarray(crop).save(folder / "pictures" / source.name)
    picture = Image.fromarray(crop)
    for name in ("a.jpg", "a.webp", "a.tiff", "a.avif", "a.png"):
        picture.save(folder / name)
    picture.convert("L").save(folder / "grey.png")
    alpha = np.dstack([crop, np.linspace(0, 255, crop[..., 0].size).reshape(crop.shape[:2])])
    Image.fromarray(alpha.astype(np.uint8)).save(folder / "alpha.png")
    Image.fromarray(crop[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    pages = [picture, picture.rotate(180)]
    pages[0].save(folder / "moving.png", save_all=True, append_images=pages[1:], duration=80)
    pages[0].save(folder / "pages.tiff", save_all=True, append_images=pages[1:])
    whole, clip = data / "video" / "bikes.mp4", folder / "clip.mp4"
    with av.open(str(whole)) as source, av.open(str(clip), "w") as part:
        stream = part.add_stream_from_template(source.streams.video[0])
        for packet in itertools.islice(source.demux(video=0), CLIP_FRAMES):
            packet.stream = stream
            part.mux(packet)
    (folder / "train.toml").write_text(TRAINING, encoding="utf-8")


def make_outputs(folder: Path) -> None:
    """Run every command of the set."""
    images = sorted(path.name for path in folder.iterdir() if path.suffix not in (".mp4", ".toml"))
    stills = [name for name in images if name != "pictures"]
    for model, scale in (("realtime", "2"), ("stream", "4"), ("magic:1.0", "3")):
        where = f"out/{model.replace(':', '_')}_x{scale}"
        (folder / where).mkdir(parents=True)
        command(folder, "upscale", *stills, "-o", where, "--model", model, "--scale", scale)
    (folder / "out" / "tiled").mkdir()
    command(
        folder, "upscale", "a.png", "-o", "out/tiled", "--model", "stream:compressed",
        "--tile", "32", "--scale", "2",
    )  # fmt: skip
    command(
        folder, "upscale", "clip.mp4", "-o", "out/clip.mkv", "--scale", "2", "--codec", "ffv1",
        "--tile", "128",
    )  # fmt: skip
    weights = ROOT / "src/paragonsr2/weights/files/paragonsr2_realtime_x2_fidelity.safetensors"
    command(folder, "export", "--model", str(weights), "-o", "out/export")
    command(folder, "train", "train.toml")


def frames_of(path: Path) -> Iterator[bytes]:
    """Time stamps and samples of a clip, and the packets of its other streams."""
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.stream.type != "video":
                yield f"{packet.stream.index} {packet.pts}".encode() + bytes(packet)
                continue
            for frame in packet.decode():
                yield f"{frame.pts} {frame.format.name}".encode()
                yield from (bytes(plane) for plane in frame.planes)


def digest(path: Path) -> str:
    """Of what ``path`` holds."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
        content = b"".join(name.encode() + state[name].numpy().tobytes() for name in sorted(state))
    elif path.suffix == ".onnx":
        import onnx

        model = onnx.load(str(path))
        content = model.graph.SerializeToString(deterministic=True)
    elif path.suffix == ".mkv":
        content = b"".join(frames_of(path))
    return hashlib.sha256(content).hexdigest()


def digests(data: Path) -> dict[str, str]:
    """Make the set in a temporary folder; its digests by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, data)
        make_outputs(folder)
        found = [path for path in sorted((folder / "out").rglob("*")) if path.is_file()]
        found += sorted((folder / "run").glob("*.safetensors"))
        return {str(path.relative_to(folder)): digest(path) for path in found}


def main() -> int:
    """Write the digests, or compare them with earlier ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="with val/ and video/bikes.mp4")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--against", type=Path, help="digests of before")
    options = parser.parse_args()
    found = digests(options.data.resolve())
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not options.against:
        return 0
    before = json.loads(options.against.read_text(encoding="utf-8"))
    changed = sorted(name for name in before.keys() | found if before.get(name) != found.get(name))
    print(f"{len(before) - len(set(changed) & set(before))} of {len(before)} outputs are the same")
    for name in changed:
        print(f"differs: {name}")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
