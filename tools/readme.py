"""Fill the tables of the README and the docs from result files.

Each table is between ``<!-- name -->`` and ``<!-- /name -->``. ``--check`` changes nothing and
fails if a table is out of date.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paragonsr2.measure.machine import machine_line
from paragonsr2.measure.quality import decibel
from paragonsr2.variants import SCALES, VARIANTS
from paragonsr2.weights.catalogue import entries

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
SETS = ("Set5", "Set14", "Urban100-20")


def load(path: str) -> dict:
    """Read a result file."""
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def machine(result: dict) -> str:
    """The machine of a result, in one line."""
    return machine_line(result["machine"])


def rows(*lines: list[str]) -> str:
    """Format a Markdown table; the first line is its header."""
    head, *body = lines
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def variants() -> str:
    """Cost of each variant, and quality of the bundled ones."""
    cost = load("cost.json")["variants"]
    lines = [["variant", "for", "blocks", "channels", "parameters", "K MAC per LR pixel, x2",
              *(f"{name} x2, dB" for name in SETS)]]  # fmt: skip
    for name, row in VARIANTS.items():
        result = RESULTS / "quality" / f"paragonsr2_{name}_x2_fidelity.json"
        sets = load(f"quality/{result.name}")["sets"] if result.exists() else {}
        lines.append([
            f"`{name}`", row.purpose, f"{row.groups} × {row.blocks} {row.block}",
            str(row.channels), f"{cost[name]['2']['parameters']:,}",
            f"{cost[name]['2']['kmacs_per_pixel']:,.1f}",
            *(decibel(sets[key]["psnr_y"]) if sets else "not trained yet" for key in SETS),
        ])  # fmt: skip
    for model, label in (("bicubic", "bicubic"), ("magic", "`magic:1.0`")):
        sets = load(f"quality/{model}_x2.json")["sets"]
        quality = (decibel(sets[key]["psnr_y"]) for key in SETS)
        lines.append([label, "classical resize, for comparison", "", "", "", "", *quality])
    return rows(*lines)


def quality() -> str:
    """All measurements of the bundled models."""
    timed = {
        one["name"]: one["engines"]["ONNX Runtime"]["median"] * 1e3
        for one in load("speed/peers.json")["beside_peers"]["ours"]
    }
    lines = [["model", *(f"{name}, dB / SSIM" for name in (*SETS, "val")),
              "parameters", "K MAC per LR pixel", "ms"]]  # fmt: skip
    for entry in entries():
        sets = load(f"quality/{entry.name}.json")["sets"]
        scores = (f"{decibel(sets[key]['psnr_y'])} / {floored(sets[key]['ssim_y'], 4)}"
                  for key in (*SETS, "val"))  # fmt: skip
        # Speed is compared at x2, among the models trained for fidelity.
        ms = timed.get(entry.variant) if (entry.scale, entry.kind) == (2, "fidelity") else None
        lines.append([
            f"`{entry.variant}:{entry.kind}` x{entry.scale}", *scores, f"{entry.parameters:,}",
            f"{entry.kmacs_per_pixel:,.1f}", "" if ms is None else f"{ms:.0f}",
        ])  # fmt: skip
    return rows(*lines)


def crops() -> str:
    """Crops of each bundled model, and the number of windows that it makes worse."""
    found = load("quality/crops.json")["models"]
    parts: list[str] = []
    for entry in entries():
        about = found[entry.name]
        parts.append(
            f"### {entry.variant.capitalize()} x{entry.scale}, {entry.kind}\n\n"
            f"{about['worse_than_bicubic']} of {about['windows']} windows are farther from the "
            f"original than bicubic's.\n\n![crops](images/crops_{entry.name}.png)"
        )
    return "\n\n".join(parts)


def ensemble() -> str:
    """What ``--ensemble`` gains and costs."""
    result = load("quality/ensemble.json")
    sets = list(result["models"][0]["gain_db"])
    lines = [["model", *(f"{name}, dB" for name in sets), "times the processor time"]]
    for row in result["models"]:
        gains = (f"+{floored(gain, 2)}" for gain in row["gain_db"].values())
        lines.append([f"`{row['variant']}` x{row['scale']}", *gains, f"{row['times_the_cost']:g}"])
    return f"{rows(*lines)}\n\nOne thread, {machine(result)}, beside other work."


def bfloat16() -> str:
    """What bfloat16 in OpenVINO gains and costs."""
    result = load("speed/number_formats.json")
    plain, narrow = "onnxruntime fp32", "openvino bf16"
    lines = [["model", "ONNX Runtime, ms", "OpenVINO, ms", "OpenVINO in bfloat16, ms",
              "times as fast", "Set14, dB"]]  # fmt: skip
    for row in result["rows"]:
        ms = row["milliseconds"]
        lines.append([
            f"`{row['model']}`", *(f"{ms[key]:.0f}" for key in (plain, "openvino fp32", narrow)),
            floored(ms[plain] / ms[narrow], 1), lost(row, narrow),
        ])  # fmt: skip
    return f"{rows(*lines)}\n\n{timed(result)}"


def int8() -> str:
    """What INT8 gains and costs in both engines, beside float32 and bfloat16."""
    result = load("speed/number_formats.json")
    lines = [["model", "engine", "format", "ms", "times as fast as float32 there", "Set14, dB"]]
    for row in result["rows"]:
        ms = row["milliseconds"]
        if "onnxruntime int8" not in ms:
            continue
        for key, value in ms.items():
            engine, _, form = key.partition(" ")
            lines.append([
                f"`{row['model']}`", ENGINES[engine], FORMATS[form], f"{value:.0f}",
                floored(ms[f"{engine} fp32"] / value, 2), lost(row, key),
            ])  # fmt: skip
    return f"{rows(*lines)}\n\n{timed(result)}"


def lost(row: dict[str, Any], key: str) -> str:
    """What a number format changes in PSNR, in dB, rounded to its disadvantage."""
    scores = row["set14_psnr_y"]
    change = math.floor((scores[key] - scores["onnxruntime fp32"]) * 1000) / 1000
    return f"{change:+.3f}"


def timed(result: dict[str, Any]) -> str:
    """Under which conditions times were taken."""
    width, height = result["input"]
    return (
        f"x{result['scale']} of {width}x{height}, {result['threads']} threads, "
        f"one run ({machine(result)})."
    )


def jpeg(path: str = "quality/jpeg.json") -> str:
    """Models on JPEGs."""
    result = load(path)["rows"]
    models = list(result[0]["psnr_y"])
    lines = [["JPEG quality", *(f"`{name}`, dB" for name in models)]]
    lines += [[str(row["quality"]), *(decibel(row["psnr_y"][m]) for m in models)] for row in result]
    return rows(*lines)


def clips(path: str = "quality/clips.json") -> str:
    """Models on H.264 clips: a real one, and pictures over which the camera glides."""
    result = load(path)
    models = list(result["clip"][0]["psnr_y"])
    lines = [["", "CRF", "quantiser", *(f"`{name}`, dB" for name in models)]]
    for name, key in (("a clip", "clip"), ("pictures", "pictures")):
        lines += [
            [name, str(row["crf"]), f"{row['quantiser']:.1f}"]
            + [decibel(row["psnr_y"][model]) for model in models]
            for row in result[key]
        ]
    return rows(*lines)


def floored(value: float, digits: int) -> str:
    """``value`` with so many decimals, never rounded up."""
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def speed() -> str:
    """Realtime beside a Compact-class network."""
    result = load("speed/realtime_x2_vs_compact.json")
    seconds = result["seconds"]
    height, width = result["input"]
    return (
        f"One {width}x{height} picture to {2 * width}x{2 * height} in ONNX Runtime on "
        f"{result['threads']} CPU threads: Realtime "
        f"{seconds['realtime_x2']['median'] * 1e3:.0f} ms, a network of the Compact class "
        f"(64 channels, 16 convolutions) {seconds['compact_class_x2']['median'] * 1e3:.0f} ms "
        f"in the same run, {result['ratio']:.1f} times as long ({machine(result)})."
    )


def peers() -> str:
    """Ours and other networks by latency, and what is at least as fast and better."""
    result = load("speed/peers.json")
    beside = result["beside_peers"]
    width, height = beside["input"]
    placed = [
        (one["engines"]["ONNX Runtime"]["median"], f"**{one['name']}**", one)
        for one in beside["ours"]
    ]
    placed += [(one["median"], one["name"], one) for one in beside["peers"]]
    lines = [["network", "ms", "Set5, dB", "Set14, dB"]]
    for seconds, name, one in sorted(placed, key=lambda row: row[0]):
        quality = (one["psnr_y_x2_Set5"], one["psnr_y_x2_Set14"])
        known = ["" if value is None else decibel(value) for value in quality]
        lines.append([name, f"{seconds * 1e3:.1f}", *known])
    better = "; ".join(
        f"{one['name']}: {', '.join(peer['name'] for peer in one['faster_and_better']) or 'none'}"
        for one in beside["ours"]
    )
    head = (
        f"x2 of {width}x{height} in ONNX Runtime, {result['threads']} threads, one run "
        f"({machine(result)}); other networks' quality as published or measured by "
        "their rows in the result file."
    )
    note = f"Timed networks that are at least as fast and better on Set14 than {better}."
    return "\n\n".join([head, rows(*lines), note])


def memory() -> str:
    """Memory for training."""
    lines = [["variant", "crops", "GiB", "GiB with `network.checkpointing`"]]
    counted = load("training_memory.json")["rows"]
    for plain, again in zip(counted[::2], counted[1::2], strict=True):
        crops = f"{plain['batch']} of {plain['patch']}x{plain['patch']}"
        lines.append(
            [f"`{plain['variant']}`", crops, f"{plain['total_gib']}", f"{again['total_gib']}"]
        )
    return rows(*lines)


def time() -> str:
    """Duration of a training step."""
    result = load("speed/training_steps.json")
    able = result["bfloat16"]
    lines = [["configuration", "crops", "float32, s", *(["bfloat16, s"] if able else []), "share"]]
    for row in result["rows"]:
        seconds = row["seconds_per_step"]
        lines.append([
            f"`{row['configuration']}`", f"{row['batch']} of {row['patch']}x{row['patch']}",
            f"{seconds['fp32']:.3f}", *([f"{seconds['bf16']:.3f}"] if able else []),
            f"{100 * row['share_of_peak']:.0f} %",
        ])  # fmt: skip
    head = (
        f"Processor time of a step on one thread ({machine(result)}), and the share that its "
        f"multiply-adds in float32 have of the {result['matrix_peak_gflops']} GFLOP/s of a large "
        "matrix product. "
        + ("" if able else "This CPU has no instructions for bfloat16. ")
        + "None is measured on a GPU."
    )
    return "\n\n".join([head, rows(*lines)])


def loader() -> str:
    """Crops per second of the loader."""
    result = load("speed/training_loader.json")
    lines = [["pictures", "crops per second of a thread"]]
    rates = result["samples_per_second_of_a_thread"]
    lines += [[name, f"{rate:,.0f}"] for name, rate in rates.items()]
    head = (
        f"Crops of {result['patch']}x{result['patch']} at x2 from {result['images']} photographs, "
        f"by processor time ({machine(result)}); `data.workers` threads make that many times as "
        "many, as far as there are cores."
    )
    return "\n\n".join([head, rows(*lines)])


def discriminators() -> str:
    """Models trained against different discriminators."""
    head = ["model", "PSNR-Y, dB", "spectrum, dB", "gradients", "features"]
    body = (
        [
            row["model"],
            decibel(row["psnr_y"]),
            f"{row['log_spectral_distance_db']:.2f}",
            f"{row['gradient_histogram_distance']:.4f}",
            f"{row['efficientnet_lite0_distance']:.4f}",
        ]
        for row in load("perceptual/discriminators_x2.json")["models"]
    )
    return rows(head, *body)


def for_the_eye(path: str, wanted: dict[str, tuple[str, ...]]) -> str:
    """Rows of a table for the eye.

    Args:
        path: of the result file.
        wanted: models by input.
    """
    lines = [["input", "model", "PSNR-Y, dB", "spectrum, dB", "EfficientNet-Lite0",
              "text detector", "NIQE", "blockiness"]]  # fmt: skip
    found = {(row["input"], row["model"]): row for row in load(path)["rows"]}
    for kind, models in wanted.items():
        for model in models:
            row = found[kind, model]
            lines.append([
                kind, model, decibel(row["psnr_y"]), f"{row['log_spectral_distance_db']:.2f}",
                f"{row['efficientnet_lite0_distance']:.3f}",
                f"{row['text_detector_distance']:.3f}", f"{row['niqe']:.1f}",
                f"{row['blockiness']:.2f}",
            ])  # fmt: skip
    return rows(*lines)


_PEER = "realesr-animevideov3-x{}"


def eye(scale: int = 2) -> str:
    """Photographs."""
    peer = _PEER.format(scale)
    restored = ("bicubic", "stream", "stream:real", peer)
    wanted = {"shrunk": ("bicubic", "stream", "stream:perceptual", peer)}
    wanted |= {"jpeg 20": restored, "blind": restored}
    return for_the_eye(f"perceptual/restoration_x{scale}.json", wanted)


def strength() -> str:
    """The dial from faithful to crisp."""
    lines = [["strength", "PSNR-Y, dB", "spectrum, dB", "EfficientNet-Lite0", "text detector",
              "NIQE", "mean difference from strength 0, of 255"]]  # fmt: skip
    lines += [
        [
            f"{row['strength']:g}", decibel(row["psnr_y"]),
            f"{row['log_spectral_distance_db']:.2f}",
            f"{row['efficientnet_lite0_distance']:.3f}", f"{row['text_detector_distance']:.3f}",
            f"{row['niqe']:.1f}", f"{row['mean_difference_from_strength_0']:.2f}",
        ]
        for row in load("perceptual/strength_x2.json")["rows"]
    ]  # fmt: skip
    return rows(*lines)


def drawings(scale: int = 2) -> str:
    """Pictures drawn by code."""
    ours = {
        2: ("realtime", "realtime:art"),
        4: ("stream", "stream:compressed", "stream:real"),
    }
    models = ("bicubic", *ours[scale], _PEER.format(scale))
    wanted = dict.fromkeys(("shrunk", "jpeg 20", "blind"), models)
    return for_the_eye(f"perceptual/drawings_x{scale}.json", wanted)


def service() -> str:
    """The HTTP service under more requests than it can answer."""
    result = load("robustness/service_load.json")
    answers, times = result["answers"], result["seconds_p50_p95_p99_max"]
    sizes = ", ".join(f"{width}x{height}" for width, height in result["pictures"])
    eighths = result["rss_mib_by_eighths"]
    return (
        f"Under {result['times_capacity']:g} times its capacity for {result['seconds']:.0f} s, "
        f"with {result['workers']} workers and a queue of {result['waiting']}, the service gave "
        f"{answers['right']:,} right pictures ({sizes}; {result['model']}; "
        f"{result['accepted_per_second']:g} a second) and refused {answers['refused']:,} requests; "
        f"there was no other answer. Half of the accepted ones took {times[0]:g} s, 99 of 100 took "
        f"{times[2]:g} s, all less than `--max-seconds {result['bound_seconds']:g}`. It held "
        f"{eighths[1]:.0f} MiB in the second eighth of the time and {eighths[-1]:.0f} MiB in the "
        f"last, and left no file. Client and service shared a busy machine ({machine(result)}; "
        "`benchmark/service_load.py`)."
    )


def tools() -> str:
    """What runs the bundled models beside our own command, and how near it comes."""
    result = load("export/tools.json")
    lines = [["tool", "version", "model", "largest difference, of 255", "least PSNR, dB",
              "processor ms, 320x180"]]  # fmt: skip
    for row in result["rows"]:
        model = f"{row['model']} x{row['scale']}"
        if "not_run" in row:
            lines.append([row["tool"], "", model, f"not run: {row['not_run']}", "", ""])
            continue
        difference = math.ceil(row["largest_difference"] * 255 * 1000) / 1000
        psnr = row["lowest_psnr"]
        lines.append([
            row["tool"], row["version"], model, f"{difference:.3f}",
            "equal" if psnr is None else floored(psnr, 1), str(row.get("ms_320x180", "")),
        ])  # fmt: skip
    return f"{rows(*lines)}\n\nOne thread, {machine(result)}."


#: Engines and number formats of ``benchmark/number_formats.py``, for people.
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
FORMATS = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "int8": "INT8",
    "int8, fp32": "INT8, the rest float32",
    "int8, bf16": "INT8, the rest bfloat16",
}

#: The tables of each page.
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"variants": variants, "speed": speed, "peers": peers},
    "docs/quality.md": {
        "quality": quality,
        "jpeg": jpeg,
        "jpeg3": lambda: jpeg("quality/jpeg_x3.json"),
        "jpeg4": lambda: jpeg("quality/jpeg_x4.json"),
        "clips": clips,
        "clips3": lambda: clips("quality/clips_x3.json"),
        "clips4": lambda: clips("quality/clips_x4.json"),
        "bfloat16": bfloat16,
        "int8": int8,
        "ensemble": ensemble,
        "crops": crops,
    },
    "docs/service.md": {"service": service},
    "docs/tools.md": {"tools": tools},
    "docs/training.md": {"memory": memory, "time": time, "loader": loader},
    "docs/decisions/0003-munet.md": {"discriminators": discriminators},
    "docs/decisions/0015-for-the-eye.md": {"eye": eye, "strength": strength, "drawings": drawings},
    "docs/decisions/0016-for-the-eye-at-x4.md": {
        "eye": lambda: eye(4),
        "drawings": lambda: drawings(4),
    },
}


def filled(page: str) -> str:
    """The text of ``page`` with every table rebuilt."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, make in PAGES[page].items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(
            pattern, lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            sys.exit(f"{page} must have one place for the table '{name}', not {count}")
    return text


def measure_costs() -> None:
    """Write ``results/cost.json`` for all variants and scales."""
    from dataclasses import asdict

    from paragonsr2.measure.cost import network_cost
    from paragonsr2.measure.machine import write_result
    from paragonsr2.network.generator import build

    table = {
        name: {str(scale): asdict(network_cost(build(name, scale))) for scale in SCALES}
        for name in VARIANTS
    }
    write_result(RESULTS / "cost.json", {"variants": table})


def main() -> None:
    """Fill or check the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if out of date"
    )
    parser.add_argument(
        "--costs", action="store_true", help="count the costs of the networks first"
    )
    options = parser.parse_args()
    if options.costs:
        measure_costs()
    for page in PAGES:
        after = filled(page)
        path = ROOT / page
        if path.read_text(encoding="utf-8") == after:
            continue
        if options.check:
            sys.exit(f"{page} is out of date; run python tools/readme.py")
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
