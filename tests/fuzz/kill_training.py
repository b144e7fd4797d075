"""Kill a training run at random moments: it must end as if nothing had happened.

::

    PYTHONPATH=tests python -m fuzz.kill_training --result results/robustness/kill_training.json

The run plays against a small discriminator and writes its state after every step. Some kills are
at random moments, and some, aimed, at the moment a file is being written. After each kill the
state and the checkpoints that are there must be readable; at the end all losses and weights, the
discriminator's too, must be those of a run in peace.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.flop_counter
from PIL import Image

from fuzz.forked import Forked
from paragonsr2.errors import WeightsError
from paragonsr2.files import is_temporary
from paragonsr2.measure.machine import write_result
from paragonsr2.training import loop  # noqa: F401 - or each run would import it
from paragonsr2.training.journal import TRAINING_FILE
from paragonsr2.training.state import STATE_FILE
from paragonsr2.weights.store import load_checkpoint

CONFIG = """
[network]
variant = "realtime"
scale = 2
upsampler_alpha = 0.4
[data]
train = ["{folder}/train"]
val = "{folder}/val"
patch = 16
batch = 2
[schedule]
steps = {steps}
warmup = 5
[loss]
pixel = {{}}
adversarial = {{ weight = 0.05 }}
[discriminator]
num_feat = 8
[run]
output = "{folder}/unused"
device = "cpu"
threads = 1
log_every = 1
validate_every = 5
checkpoint_minutes = 1e-9
"""


def prepare(folder: Path, steps: int) -> Path:
    """Make pictures of noise and the configuration; give back its path."""
    for split, side in (("train", 96), ("val", 48)):
        (folder / split).mkdir()
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / split / "0.png")
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder, steps=steps), encoding="utf-8")
    return config


def start(config: Path, output: Path) -> Forked:
    arguments = ["train", str(config), f"run.output={output}"]
    if (output / STATE_FILE).exists():
        arguments.append("--resume")
    return Forked(arguments)


def finish(config: Path, output: Path) -> None:
    with start(config, output) as process:
        said = process.stderr.read()
    if process.returncode:
        sys.exit(f"a run ended with {process.returncode}: {said}")


def losses(output: Path) -> list[float]:
    lines = (output / TRAINING_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


def read_state(output: Path) -> dict[str, Any]:
    return torch.load(output / STATE_FILE, weights_only=True)


def unreadable(output: Path) -> list[str]:
    """What of the run's checkpoints is there and damaged."""
    damaged: list[str] = []
    for path in output.glob("*.safetensors"):
        if is_temporary(path):
            continue
        try:
            load_checkpoint(path, arch="realtime", scale=2)
        except WeightsError:
            damaged.append(path.name)
    if (output / STATE_FILE).exists():
        try:
            read_state(output)
        except (pickle.UnpicklingError, RuntimeError, EOFError):
            damaged.append(STATE_FILE)
    return damaged


def same(one: Any, other: Any) -> bool:
    """Whether nested states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def wait_for_a_file_in_writing(process: Forked, output: Path) -> None:
    while process.poll() is None:
        if any(is_temporary(Path(entry.name)) for entry in os.scandir(output)):
            return


def main() -> None:
    """Kill, resume, compare, and write the result file; exit 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--aimed", type=int, default=10, help="kills while a file is written")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    aims = [False] * options.kills + [True] * options.aimed
    rng.shuffle(aims)
    steps = 12 * len(aims)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = prepare(folder, steps)
        peace, war = folder / "peace", folder / "war"
        finish(config, peace)
        reached: list[int] = []
        damaged: list[str] = []
        before_any, while_writing = 0, 0
        for aimed in aims:
            # A few steps, then any moment within the next one or two.
            lines, moment = rng.randint(0, 16), rng.uniform(0.0, 0.1)
            with start(config, war) as process:
                seen = 0
                for line in process.stderr:
                    seen += line.startswith("step")
                    if seen >= lines:
                        break
                if aimed:
                    wait_for_a_file_in_writing(process, war)
                else:
                    time.sleep(moment)
                process.kill()
            found = unreadable(war)
            damaged += found
            while_writing += any(is_temporary(path) for path in war.glob(".*"))
            if not (war / STATE_FILE).exists():
                before_any += 1
            elif STATE_FILE not in found:
                reached.append(read_state(war)["step"])
            print(f"killed at {reached[-1:]}, damaged: {found or 'nothing'}", flush=True)
        finish(config, war)
        same_losses = losses(war) == losses(peace)
        same_state = same(read_state(war), read_state(peace))
        damaged += unreadable(war)
    result = {
        "what": "kill -9 of a training run against a discriminator, resumed after each kill",
        "kills_at_random_moments": options.kills,
        "kills_aimed_at_writing": options.aimed,
        "steps": steps,
        "killed_at_steps": reached,
        "killed_before_any_state": before_any,
        "killed_while_a_file_was_written": while_writing,
        "unreadable_checkpoints": damaged,
        "same_losses_as_in_peace": same_losses,
        "same_state_as_in_peace": same_state,
    }
    print(result)
    if options.result:
        write_result(options.result, result)
    sys.exit(0 if same_losses and same_state and not damaged else 1)


if __name__ == "__main__":
    main()
