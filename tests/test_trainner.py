"""A traiNNer-redux YAML becomes our configuration, and what it loses on the way is said."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from PIL import Image

from conftest import photo_like
from paragonsr2.errors import ConfigError
from paragonsr2.training.config import TrainConfig
from paragonsr2.training.config_file import load_config
from paragonsr2.training.trainner import translate

FIDELITY = """
name: 2x_stream
scale: 2
use_amp: true
amp_bf16: true
use_channels_last: true
num_gpu: auto
manual_seed: 7
datasets:
  train:
    name: photographs
    type: pairedimagedataset
    dataroot_gt: [hr/one, hr/two]
    lq_size: 40
    batch_size_per_gpu: 6
    num_worker_per_gpu: 8
    use_hflip: true
    use_rot: false
  val:
    name: held out
    type: pairedimagedataset
    dataroot_gt: held_out
network_g:
  type: ParagonSR2_Stream
  upsampler_alpha: 0.25
  use_checkpointing: true
  detail_gain: 0.1
path:
  pretrain_network_g: start.safetensors
  resume_state: ~
train:
  ema_decay: 0.995
  ema_power: 0.75
  grad_clip: true
  optim_g: {type: AdamW, lr: !!float 2e-4, weight_decay: 0, betas: [0.9, 0.95]}
  scheduler: {type: MultiStepLR, milestones: [100, 200], gamma: 0.5}
  total_iter: 4000
  warmup_iter: -1
  losses:
    - {type: charbonnierloss, loss_weight: 1.0, eps: 1.0e-12}
    - {type: mssimloss, loss_weight: 0.08}
    - {type: ldlloss, loss_weight: 0.5, criterion: l1}
    - {type: hsluvloss, loss_weight: 1.0}
    - {type: distsloss, loss_weight: 0}
val: {val_enabled: true, val_freq: 500, save_img: true}
logger: {print_freq: 50, save_checkpoint_freq: 1000, use_tb_logger: true}
"""


def options(**changes):
    """Parsed options with dotted keys, written with double underscores, changed."""
    root = yaml.safe_load(FIDELITY)
    for key, value in changes.items():
        *sections, name = key.split("__")
        inner = root
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return root


def test_a_fidelity_run_is_taken_over(tmp_path):
    path = tmp_path / "run.yml"
    paired = FIDELITY.replace("lq_size", "dataroot_lq: [lr/one, lr/two]\n    lq_size")
    path.write_text(paired)
    said = []
    config = load_config(path, ["schedule.steps=40"], said.append)
    assert (config.network.variant, config.network.scale) == ("stream", 2)
    assert config.network.upsampler_alpha == 0.25
    assert config.network.checkpointing
    assert str(config.network.pretrain) == "start.safetensors"
    assert [str(folder.path) for folder in config.data.train] == ["hr/one", "hr/two"]
    assert [str(folder.lr) for folder in config.data.train] == ["lr/one", "lr/two"]
    assert (config.data.patch, config.data.batch) == (40, 6)
    assert (config.schedule.steps, config.schedule.lr, config.schedule.warmup) == (40, 2e-4, 0)
    assert (config.schedule.ema, config.schedule.betas) == (0.995, (0.9, 0.95))
    assert config.loss.pixel.kind == "charbonnier"
    assert config.loss.ms_ssim.weight == 0.08
    assert config.loss.artefact.weight == 0.5
    assert config.loss.dists is None
    assert (config.run.seed, config.run.validate_every, config.run.log_every) == (7, 500, 50)
    assert str(config.run.output) == "runs/2x_stream"

    (line,) = said
    for ignored in (
        "datasets.train.num_worker_per_gpu = 8",
        "datasets.train.use_rot = False",
        "network_g.detail_gain = 0.1",
        "train.ema_power = 0.75",
        "train.scheduler.type = MultiStepLR (instead: a cosine from schedule.lr",
        "train.scheduler.milestones",
        "train.losses of type hsluvloss",
        "train.losses: eps of charbonnierloss",
        "num_gpu = auto",
        "val.save_img",
    ):
        assert ignored in line
    for understood in ("use_hflip", "amp_bf16", "resume_state", "criterion", "distsloss", "total"):
        assert understood not in line


def test_a_run_starts_from_a_yaml(tmp_path):
    for name in ("hr", "held_out"):
        (tmp_path / name).mkdir()
        Image.fromarray(photo_like(60, 64)).save(tmp_path / name / "one.png")
    root = options(network_g={"type": "paragonsr2_realtime"}, path={}, train__total_iter=2)
    root["datasets"]["train"] |= {"dataroot_gt": str(tmp_path / "hr"), "lq_size": 24}
    root["datasets"]["val"]["dataroot_gt"] = str(tmp_path / "held_out")
    path = tmp_path / "run.yml"
    path.write_text(yaml.safe_dump(root))
    command = [sys.executable, "-m", "paragonsr2", "train", str(path), "run.device=cpu"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "ignored, no counterpart here" in result.stderr
    assert (tmp_path / "runs" / "2x_stream" / "last.safetensors").exists()


def test_every_key_is_used_or_listed():
    root = options(train__use_moa=True, invented={"deep": {"er": 1}}, train__new_thing=3)
    ignored = " ".join(translate(root).ignored)
    for key in ("train.use_moa = True", "invented.deep.er = 1", "train.new_thing = 3"):
        assert key in ignored


def test_pairs_batches_and_sizes():
    data = {"dataroot_gt": ["a", "b"], "dataroot_lq": ["c", "d"], "gt_size": 96}
    data |= {"batch_size_per_gpu": 4, "accum_iter": 3}
    val = {"dataroot_gt": "v"}
    table = translate(options(datasets={"train": data, "val": val}, num_gpu=2)).table
    assert table["data"]["train"] == [{"path": "a", "lr": "c"}, {"path": "b", "lr": "d"}]
    assert table["data"]["patch"] == 48
    assert table["data"]["batch"] == 4 * 3 * 2
    assert TrainConfig.model_validate(table).schedule.accumulate == 3
    blind = translate(options(high_order_degradation=True, blur_prob=0.3))
    assert TrainConfig.model_validate(blind.table).degradation.kind == "blind"
    assert "blur_prob = 0.3" in blind.ignored
    assert translate(options(use_amp=False)).table["run"]["precision"] == "fp32"


def test_an_adversarial_run_keeps_its_discriminator():
    losses = [
        {"type": "L1Loss", "loss_weight": 1.0},
        {"type": "GANLoss", "gan_type": "hinge", "loss_weight": 0.1, "start_iter": 50},
        {"type": "FeatureMatchingLoss", "loss_weight": 1.0, "layers": [1, 2]},
    ]
    translation = translate(
        options(
            train__losses=losses,
            network_d={"type": "MUNet", "num_feat": 32, "ch_mult": [1, 2, 2], "num_in_ch": 3},
            train__optim_d={"type": "AdamW", "lr": 1e-4, "weight_decay": 0},
        )
    )
    assert translation.table["loss"] == {
        "pixel": {"kind": "l1", "weight": 1.0},
        "adversarial": {"kind": "hinge", "weight": 0.1, "start": 50},
        "features": {"weight": 1.0},
    }
    assert translation.table["discriminator"] == {"num_feat": 32, "ch_mult": [1, 2, 2], "lr": 1e-4}
    assert any("layers of FeatureMatchingLoss" in line for line in translation.ignored)
    config = TrainConfig.model_validate(translation.table)
    assert config.loss.adversarial.start == 50
    assert config.discriminator.num_feat == 32
    other = translate(options(train__losses=losses, network_d={"type": "dunet"}))
    assert "network_d.type = dunet (instead: MUNet)" in other.ignored


def test_the_older_form_of_losses_is_read():
    train = {
        "total_iter": 5,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 2.0, "reduction": "mean"},
    }
    train["gan_opt"] = {"type": "r3ganloss", "gan_weight": 0.03}
    translation = translate(options(train=train))
    assert translation.table["loss"] == {
        "pixel": {"kind": "l1", "weight": 2.0},
        "adversarial": {"kind": "relativistic", "weight": 0.03},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_g__type": "compact"}, "paragonsr2_realtime"),
        ({"network_g__scale": 4}, "network_g.scale is 4"),
        ({"datasets__train__dataroot_lq": ["one"]}, "give each its partner"),
        ({"datasets__train__gt_size": 81}, "lq_size times 2"),
        ({"datasets__train__batch_size_per_gpu": "many"}, "whole number"),
        ({"name": "../../elsewhere"}, "without slashes"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        translate(options(**changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("just words", "no keys"),
        ("a: !!python/object/apply:os.system [echo]", "not valid YAML"),
        ("[" * 1000, "not valid YAML"),
        ("x: " + "y" * 1_000_001, "bytes"),
        (FIDELITY.replace("lq_size: 40", "lq_size: small"), "data.patch"),
        (FIDELITY.replace("loss_weight: 1.0, eps", "loss_weight: heavy, eps"), "loss.pixel.weight"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path, log=lambda _: None)
    assert "\n" not in str(caught.value)


def test_a_hostile_file_neither_explodes_nor_steers_the_terminal(tmp_path):
    bomb = "a0: &a0 [lol]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    path = tmp_path / "run.yml"
    path.write_text(bomb + FIDELITY + 'evil: "\\e[2Jgone"\n')
    said = []
    load_config(path, log=said.append)
    assert "a29" in said[0]
    assert "gone" in said[0]
    assert said[0].isprintable()
