"""Kill a training run at random moments: it must end as if nothing had happened.

::

    python tests/fuzz/kill_training.py --kills 20 --result results/robustness/kill_training.json

The run plays against a small discriminator and writes its state after every step, so that many
kills fall into the writing. After each kill the state must be readable; at the end all losses
and weights must be those of a run in peace.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from paragonsr2.measure.machine import write_result
from paragonsr2.training.journal import TRAINING_FILE
from paragonsr2.training.loop import STATE_FILE
from paragonsr2.weights.store import read_state

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
validate_every = 40
checkpoint_minutes = 1e-9
"""


def _start(config: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "paragonsr2", "train", str(config), f"run.output={output}"]
    if (output / STATE_FILE).exists():
        command.append("--resume")
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _finish(config: Path, output: Path) -> None:
    with _start(config, output) as process:
        _, said = process.communicate()
    if process.returncode:
        sys.exit(f"a run ended with {process.returncode}: {said}")


def _losses(output: Path) -> list[float]:
    lines = (output / TRAINING_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


def main() -> None:
    """Kill, resume, compare, and write the result file; exit 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    steps = 15 * options.kills
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, side in (("train", 96), ("val", 48)):
            (folder / split).mkdir()
            pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / "0.png")
        config = folder / "config.toml"
        config.write_text(CONFIG.format(folder=folder, steps=steps), encoding="utf-8")
        peace, war = folder / "peace", folder / "war"
        _finish(config, peace)
        kills, reached, before_any = 0, [], 0
        while kills < options.kills:
            # A few steps, then any moment within the next one or two.
            lines, moment = rng.randint(0, 16), rng.uniform(0.0, 0.1)
            with _start(config, war) as process:
                assert process.stderr is not None
                seen = 0
                for line in process.stderr:
                    seen += line.startswith("step")
                    if seen >= lines:
                        break
                time.sleep(moment)
                process.kill()
            kills += 1
            if (war / STATE_FILE).exists():
                state = torch.load(war / STATE_FILE, weights_only=True)  # raises if damaged
                reached.append(state["step"])
            else:
                before_any += 1
        _finish(config, war)
        same_losses = _losses(war) == _losses(peace)
        weights = [read_state(run / "last.safetensors")[0] for run in (peace, war)]
        same_weights = all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    result = {
        "kills": kills,
        "steps": steps,
        "killed_at_steps": reached,
        "killed_before_any_state": before_any,
        "unreadable_states": 0,
        "same_losses": same_losses,
        "same_weights": same_weights,
    }
    print(result)
    if options.result:
        write_result(options.result, result)
    sys.exit(0 if same_losses and same_weights else 1)


if __name__ == "__main__":
    main()
