"""The game of generator and discriminator, parts of batches, several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from paragonsr2.errors import ConfigError, TrainingError
from paragonsr2.training.adversarial import discriminator_loss, generator_loss
from paragonsr2.training.checkpoints import BAD_BATCH_FILE
from paragonsr2.training.config_file import load_config
from paragonsr2.training.loop import Trainer
from paragonsr2.training.loss_terms import feature_matching
from paragonsr2.training.losses import PixelLoss
from paragonsr2.training.state import STATE_FILE
from test_training import config_path, train, weights  # noqa: F401 - a fixture

GAME = (
    "data.patch=16",
    "loss.pixel={}",
    "loss.features={weight=0.1, start=4}",
    "loss.adversarial={weight=0.05, start=2, ramp=4, r1=0.1, r2=0.1}",
    "discriminator.num_feat=8",
    "discriminator.lead=1",
    "network.upsampler_alpha=0.4",
)


@pytest.mark.parametrize("stop_at", [1, 5])
def test_a_resumed_game_equals_an_uninterrupted_one(config_path, tmp_path, stop_at):  # noqa: F811
    whole = train(config_path, *GAME)
    output = f"run.output={tmp_path}/parts"
    before = train(config_path, *GAME, output, stop_at=stop_at)
    after = train(config_path, *GAME, output, resume=True)
    assert before + after == whole
    assert "discriminator" in whole[-1]
    assert "features" in whole[-1]
    states = [
        torch.load(tmp_path / name / STATE_FILE, weights_only=True) for name in ("run", "parts")
    ]
    for key, value in states[0]["opponent"]["network"].items():
        assert torch.equal(value, states[1]["opponent"]["network"][key])
    for key, value in weights(tmp_path / "run").items():
        assert torch.equal(value, weights(tmp_path / "parts")[key])


def test_the_discriminator_is_told_apart_from_the_generator(config_path, tmp_path):  # noqa: F811
    trainer = Trainer(load_config(config_path, [*GAME, "loss.adversarial={weight=1.0}"]))
    lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)
    theirs = [p.detach().clone() for p in trainer.opponent.network.parameters()]
    sr = trainer.network(lr)
    met = trainer.opponent.meet(hr, sr, 1, game=1.0, features=0.0)
    assert met.matching is None
    assert all(p.grad is None for p in trainer.network.parameters())
    ours = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.opponent.update(1.0)
    for before, after in zip(ours, trainer.network.parameters(), strict=True):
        assert torch.equal(before, after)
    moved = [
        not torch.equal(a, b)
        for a, b in zip(theirs, trainer.opponent.network.parameters(), strict=True)
    ]
    assert any(moved)
    (sr * met.pull).sum().backward()
    assert trainer.network.upsampler.last.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in trainer.opponent.network.parameters())


def test_both_players_get_the_gradients_of_their_own_losses(config_path):  # noqa: F811
    trainer = Trainer(load_config(config_path, [*GAME, "loss.adversarial={weight=1.0}"]))
    opponent = trainer.opponent
    opponent.network.eval()  # the same spectral norms in every pass
    torch.manual_seed(0)
    real, fake = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32, requires_grad=True)
    met = opponent.meet(real, fake, 1, game=0.5, features=0.25, share=0.5)
    found = [p.grad.clone() for p in opponent.network.parameters()]
    opponent.network.zero_grad()

    on_real, on_fake = opponent.network.inspect(real), opponent.network.inspect(fake)
    won = generator_loss("relativistic", on_real.logits.detach(), on_fake.logits)
    matching = feature_matching(on_real.features, on_fake.features)
    torch.testing.assert_close((met.won, met.matching), (won.detach(), matching.detach()))
    (pull,) = torch.autograd.grad(0.5 * won + 0.25 * matching, fake)
    torch.testing.assert_close(met.pull, pull)
    loss = discriminator_loss(
        "relativistic", opponent.network(real), opponent.network(fake.detach())
    )
    torch.testing.assert_close(met.loss, loss.detach())
    (0.5 * loss).backward()
    for parameter, gradient in zip(opponent.network.parameters(), found, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_a_penalty_may_look_at_a_part_of_the_batch(config_path):  # noqa: F811
    """A part has about the steepness of the whole, and none at all costs nothing."""
    found = []
    for penalty in ("", ", r1=2.0, r2=1.0", ", r1=2.0, r2=1.0, penalty_crops=4"):
        game = f"loss.adversarial={{weight=1.0{penalty}}}"
        trainer = Trainer(load_config(config_path, [*GAME, game]))
        trainer.opponent.network.eval()
        torch.manual_seed(0)
        real, fake = torch.rand(2, 8, 3, 32, 32)
        found.append(float(trainer.opponent.meet(real, fake, 4, game=0.0, features=0.0).loss))
    without, whole, part = found
    assert whole > without
    assert part - without == pytest.approx(whole - without, rel=0.3)


def test_the_opponent_learns_to_tell_noise_from_photographs(config_path):  # noqa: F811
    trainer = Trainer(load_config(config_path, [*GAME, "discriminator.lr=2e-3"]))
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8), size=32, mode="bicubic")
    noise = torch.rand(4, 3, 32, 32)
    losses = []
    for _ in range(30):
        losses.append(float(trainer.opponent.meet(smooth, noise, 1, game=0.0, features=0.0).loss))
        trainer.opponent.update(1.0)
    assert losses[-1] < 0.5 * losses[0]


def test_a_batch_in_parts_gives_the_same_weights(config_path, tmp_path):  # noqa: F811
    train(config_path)
    train(config_path, "schedule.accumulate=2", f"run.output={tmp_path}/parts")
    for key, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(weights(tmp_path / "parts")[key], value, atol=1e-5, rtol=1e-4)


def test_parts_of_unequal_size_are_refused(config_path):  # noqa: F811
    with pytest.raises(TrainingError, match="weigh differently"):
        train(config_path, "schedule.accumulate=3")


def test_features_without_a_game_and_tiny_crops_are_refused(config_path):  # noqa: F811
    with pytest.raises(ConfigError, match=r"loss\.adversarial"):
        load_config(config_path, ["loss.pixel={}", "loss.features={}"])
    with pytest.raises(Exception, match=r"data\.patch"):
        Trainer(load_config(config_path, ["loss.pixel={}", "loss.adversarial={}"]))


def test_an_unusual_base_is_warned_about(config_path):  # noqa: F811
    def said(*overrides):
        lines = []
        Trainer(load_config(config_path, overrides), log=lines.append)
        return "\n".join(lines)

    assert "unusual" not in said()
    assert "unusual for fidelity" in said("network.upsampler_alpha=0.5")
    game = [option for option in GAME if "alpha" not in option]
    assert "unusual for perceptual" in said(*game)
    assert "unusual" not in said(*GAME)


def test_the_batch_that_broke_a_run_is_kept(config_path, tmp_path, monkeypatch):  # noqa: F811
    train(config_path, stop_at=4)
    state = (tmp_path / "run" / STATE_FILE).read_bytes()
    monkeypatch.setattr(PixelLoss, "forward", lambda _self, sr, _hr: sr.mean() * float("nan"))
    with pytest.raises(TrainingError, match=BAD_BATCH_FILE):
        train(config_path, resume=True)
    assert (tmp_path / "run" / STATE_FILE).read_bytes() == state
    batch = load_file(tmp_path / "run" / BAD_BATCH_FILE)
    assert batch["lr"].shape == (4, 3, 12, 12)
    assert batch["hr"].shape == (4, 3, 24, 24)


@pytest.mark.parametrize(("room", "said"), [(2, "2 fit: set data.batch=2"), (0, "checkpointing")])
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=["gpu", "cpu"],
)
def test_too_large_a_batch_ends_with_what_fits(config_path, monkeypatch, room, said, error):  # noqa: F811
    trainer = Trainer(load_config(config_path))
    step = trainer.train_step

    def limited(lr, hr):
        if len(lr) > room:
            raise error
        return step(lr, hr)

    monkeypatch.setattr(trainer, "train_step", limited)
    with pytest.raises(TrainingError, match=said):
        trainer.run()


def test_a_finished_run_leaves_a_report(config_path, tmp_path):  # noqa: F811
    train(config_path, *GAME)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/png") == 3
    # Every record of a short run is a dot: three of validation PSNR and SSIM, six of the loss.
    dots = [figure.count("<circle") for figure in page.split("<figcaption>")]
    assert dots[:2] == [3, 3]
    assert 6 in dots[2:]
    visible, folded = page.split("<details>")
    assert "{" not in visible.partition("</style>")[2]
    assert "&quot;seed&quot;: 0" in folded
    assert "discriminator" in page
    assert "http" not in page
    assert records(tmp_path / "run", "step") == [2, 4, 6, 8, 10, 12]


def test_a_record_that_a_kill_cut_off_is_forgotten(config_path, tmp_path):  # noqa: F811
    whole = train(config_path)
    output = f"run.output={tmp_path}/parts"
    train(config_path, output, stop_at=5)
    with (tmp_path / "parts" / "training.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    train(config_path, output, resume=True)
    losses = [records(tmp_path / name, "loss") for name in ("run", "parts")]
    assert losses[0] == losses[1]
    assert whole


def test_a_killed_run_resumes_to_the_same_end(config_path, tmp_path):  # noqa: F811
    whole = train(config_path, "schedule.steps=30")
    output = f"run.output={tmp_path}/killed"
    command = [sys.executable, "-m", "paragonsr2", "train", str(config_path), "schedule.steps=30"]
    # A state after every step: a kill is likely to fall into the middle of writing one.
    command += [output, "run.checkpoint_minutes=1e-9", "run.threads=1"]
    for kill_after in ("step 4/", "step 12/"):
        resume = ["--resume"] if (tmp_path / "killed" / STATE_FILE).exists() else []
        with subprocess.Popen([*command, *resume], stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if line.startswith(kill_after):
                    process.send_signal(signal.SIGKILL)
                    break
    torch.load(tmp_path / "killed" / STATE_FILE, weights_only=True)
    train(config_path, "schedule.steps=30", output, "run.checkpoint_minutes=1e-9", resume=True)
    assert whole
    for key, value in weights(tmp_path / "run").items():
        assert torch.equal(value, weights(tmp_path / "killed")[key])


def records(folder, key):
    lines = (folder / "training.jsonl").read_text().splitlines()
    return [json.loads(line)[key] for line in lines]


#: What each process runs: the training, then it keeps its own weights.
PROCESS = """
import sys, torch
from pathlib import Path
from paragonsr2.training.config_file import load_config
from paragonsr2.training.loop import Trainer
folder, config, *overrides = sys.argv[1:]
say = lambda line: print(line, file=sys.stderr)
trainer = Trainer(load_config(Path(config), overrides), log=say)
trainer.run()
networks = [trainer.network, trainer.opponent.network] if trainer.opponent else [trainer.network]
states = [network.state_dict() for network in networks] + [trainer.ema.values]
torch.save(states, Path(folder) / f"rank{trainer.accelerator.process_index}.pt")
trainer.close()
"""


def launch(config, *overrides, processes):
    """Run as that many processes on the CPU; what they said on stderr.

    Each leaves its weights beside the configuration.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        env = os.environ | {key: str(value) for key, value in place.items()}
        command = [sys.executable, "-c", PROCESS, str(config.parent), str(config), *overrides]
        running.append(
            subprocess.Popen(
                command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
    try:
        said = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * processes, said
    return said


@pytest.mark.parametrize("game", [(), GAME], ids=["fidelity", "game"])
def test_two_processes_are_one_with_the_whole_batch(config_path, tmp_path, game):  # noqa: F811
    common = [*game, "run.threads=1", "schedule.steps=6", "run.log_every=1", "run.validate_every=6"]
    common.append("data.val_drawn=2")
    train(config_path, *common)
    both = f"run.output={tmp_path}/both"
    said = launch(config_path, *common, both, processes=2)
    assert "step 6/6" in said[0]
    assert "step" not in said[1]
    losses = [records(tmp_path / name, "loss") for name in ("run", "both")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5 if not game else 1e-3)
    first, last = (
        [json.loads((tmp_path / name / "validation.jsonl").read_text().splitlines()[place])
         for name in ("run", "both")]
        for place in (0, -1)
    )  # fmt: skip
    assert first[0] == first[1]
    assert last[1]["psnr_y"] == pytest.approx(last[0]["psnr_y"], abs=0.02)
    states = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert len(states[0]) == (3 if game else 2)
    torch.testing.assert_close(states[1], states[0], atol=0, rtol=0)
    for key, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(weights(tmp_path / "both")[key], value, atol=2e-3, rtol=0)
