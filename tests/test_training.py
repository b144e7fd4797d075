"""The trainer: same seed, same losses; resumed is uninterrupted; mistakes are said."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from conftest import ROOT, photo_like, stirred
from paragonsr2.arrays.resize import bicubic
from paragonsr2.cli.main import exit_on_error
from paragonsr2.cli.train import TrainingLine
from paragonsr2.errors import ConfigError, OutputError, TrainingError
from paragonsr2.files import is_temporary
from paragonsr2.measure.quality import score, shrink
from paragonsr2.network.generator import build
from paragonsr2.training.config import RunConfig, ScheduleConfig
from paragonsr2.training.config_file import load_config
from paragonsr2.training.data import CropSampler, Pair
from paragonsr2.training.journal import Journal
from paragonsr2.training.loop import Trainer, learning_rate
from paragonsr2.training.loss_terms import PixelLoss
from paragonsr2.training.losses import GeneratorLosses
from paragonsr2.training.machine import EMULATED
from paragonsr2.training.meters import LossMeans, Progress
from paragonsr2.training.optimizer import Muon, orthogonalised
from paragonsr2.training.processes import Processes
from paragonsr2.training.state import STATE_FILE
from paragonsr2.training.validation import ValidationSet, validate
from paragonsr2.weights.store import load_checkpoint, read_state, save_checkpoint

CONFIG = """
[network]
variant = "realtime"
scale = 2
[data]
train = ["{folder}/train"]
val = "{folder}/val"
patch = 12
batch = 4
[schedule]
steps = 12
lr = 1e-3
warmup = 3
[run]
output = "{folder}/run"
device = "cpu"
threads = 1
log_every = 2
validate_every = 6
"""


@pytest.fixture
def config_path(tmp_path):
    for name, count in (("train", 3), ("val", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            image = Image.fromarray(photo_like(60 + 7 * i, 80, seed=i))
            image.save(tmp_path / name / f"{i}.png")
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def train(path, *overrides, resume=False, stop_at=None):
    """Run and return the logged lines; ``stop_at`` stops after that step, state saved."""
    lines = []
    trainer = Trainer(load_config(path, overrides), resume=resume, log=lines.append)
    if stop_at is not None:
        step_once = trainer.train_step

        def stopping(lr, hr):
            loss = step_once(lr, hr)
            trainer.stopping = trainer.step + 1 == stop_at
            return loss

        trainer.train_step = stopping
    trainer.run()
    return [re.sub(r"  [\d.]+ steps/s.*", "", line) for line in lines if " loss " in line]


def weights(folder):
    return read_state(Path(folder) / "last.safetensors")[0]


def test_same_seed_same_losses_and_another_differs(config_path, tmp_path):
    first = train(config_path)
    again = train(config_path, f"run.output={tmp_path}/again")
    other = train(config_path, f"run.output={tmp_path}/other", "run.seed=1")
    assert first == again
    assert first != other
    for key, value in weights(tmp_path / "run").items():
        assert torch.equal(value, weights(tmp_path / "again")[key])


@pytest.mark.parametrize(
    ("stop_at", "precision"), [(1, "fp32"), (5, "bf16"), (6, "fp32"), (11, "fp32")]
)
def test_resumed_equals_uninterrupted(config_path, tmp_path, stop_at, precision):
    precise = f"run.precision={precision}"
    whole = train(config_path, precise)
    output = f"run.output={tmp_path}/parts"
    before = train(config_path, precise, output, stop_at=stop_at)
    after = train(config_path, precise, output, resume=True)
    assert before + after == whole
    for key, value in weights(tmp_path / "run").items():
        assert torch.equal(value, weights(tmp_path / "parts")[key])
    records = [(tmp_path / name / "validation.jsonl").read_text() for name in ("run", "parts")]
    assert records[0] == records[1]


def test_a_stopped_process_leaves_a_state_and_resumes(config_path, tmp_path):
    command = [sys.executable, "-m", "paragonsr2", "train", str(config_path)]
    command += ["schedule.steps=100000", "schedule.warmup=10"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "loss" in line:
            process.terminate()
            break
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0, rest
    assert "--resume" in rest
    load_checkpoint(tmp_path / "run" / "last.safetensors", arch="realtime", scale=2)
    state = torch.load(tmp_path / "run" / STATE_FILE, weights_only=True)
    assert state["step"] >= 2


def test_training_learns(config_path):
    train(config_path, "schedule.steps=120", "run.validate_every=60")
    lines = (config_path.parent / "run" / "validation.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert last["psnr_y"] > first["psnr_y"]
    assert last["detail_rms"] > 1e-4


def test_realtime_learns_one_crop_by_heart(tmp_path):
    """The whole way from files to validation can learn: at least 6 dB over bicubic."""
    with Image.open(ROOT / "examples" / "houses.png") as image:
        hr = np.asarray(image.convert("RGB"))[300:348, 500:548]
    (tmp_path / "one").mkdir()
    Image.fromarray(hr).save(tmp_path / "one" / "crop.png")
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(folder=tmp_path))
    one = (f'data.train=["{tmp_path}/one"]', f"data.val={tmp_path}/one", "data.patch=24")
    fast = ("schedule.steps=300", "schedule.lr=4e-3", "schedule.warmup=50", "schedule.ema=0.9")
    train(path, *one, *fast, "run.validate_every=300")
    _, record = (tmp_path / "run" / "validation.jsonl").read_text().splitlines()
    plain = score(bicubic(shrink(hr, 2), 2.0).astype(np.uint8), hr, shave=2)
    assert json.loads(record)["psnr_y"] > plain.psnr_y + 6.0


def test_starting_over_a_run_and_resuming_nothing_are_refused(config_path, tmp_path):
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(config_path, resume=True)
    train(config_path, "schedule.steps=2")
    with pytest.raises(TrainingError, match="--resume"):
        train(config_path, "schedule.steps=2")
    with pytest.raises(TrainingError, match="another configuration"):
        train(config_path, "schedule.steps=2", "schedule.lr=5e-4", resume=True)
    (tmp_path / "run" / STATE_FILE).write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="not a readable"):
        train(config_path, "schedule.steps=2", resume=True)


def test_a_written_default_and_an_option_of_tomorrow_do_not_end_a_run(config_path, monkeypatch):
    class WithMore(RunConfig):
        colour: str = "blue"

    train(config_path, "schedule.steps=2")
    train(config_path, "schedule.steps=2", "loss.pixel.kind=l1", "run.device=cpu", resume=True)
    config = load_config(config_path, ["schedule.steps=4"])
    more = WithMore.model_validate(config.run.model_dump())
    Trainer(config.model_copy(update={"run": more}), resume=True, log=lambda _: None)


def test_all_terms_train_together_and_join_in_when_told(config_path):
    short = ("schedule.steps=8", "loss.pixel.kind=l1")
    alone = train(config_path, *short)
    terms = ["ms_ssim", "frequency", "gradient", "artefact"]
    output = f"run.output={config_path.parent}/more"
    more = train(config_path, *short, *(f"loss.{term}.start=4" for term in terms), output)
    assert alone[:2] == more[:2]
    assert all(a != b for a, b in zip(alone[2:], more[2:], strict=True))


def test_a_loss_that_starts_late_is_averaged_over_its_own_steps(config_path, tmp_path):
    late = ("schedule.steps=4", "loss.pixel={}", "loss.frequency.start=3", "run.validate_every=4")

    def logged(name, every):
        train(config_path, *late, f"run.log_every={every}", f"run.output={tmp_path}/{name}")
        lines = (tmp_path / name / "training.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["frequency"]

    assert logged("together", 4) == pytest.approx(logged("alone", 1), rel=1e-6)


def test_means_of_an_older_state_count_the_steps_since_the_report():
    means = LossMeans()
    means.load_state_dict({"sums": {"loss": torch.tensor(6.0)}}, since=3)
    assert means.take(lambda value: value) == {"loss": 2.0}


def test_pretrained_weights_are_the_start(config_path, tmp_path):
    train(config_path)
    start = tmp_path / "run" / "last.safetensors"
    trainer = Trainer(
        load_config(config_path, [f"network.pretrain={start}", f"run.output={tmp_path}/more"]),
        log=lambda _: None,
    )
    for key, value in trainer.network.state_dict().items():
        assert torch.equal(value.cpu(), weights(tmp_path / "run")[key])
    larger = [f"network.pretrain={start}", f"run.output={tmp_path}/x4", "network.scale=4"]
    state = Trainer(load_config(config_path, larger), log=lambda _: None).network.state_dict()
    for key, value in weights(tmp_path / "run").items():
        if not key.startswith("upsampler"):
            assert torch.equal(state[key].cpu(), value)
    assert not state["upsampler.last.weight"].any()
    deployed = tmp_path / "deployed.safetensors"
    trained = load_checkpoint(start).network
    save_checkpoint(deployed, trained.collapse(), "realtime")
    from_deployed = [f"network.pretrain={deployed}", f"run.output={tmp_path}/deployed"]
    network = Trainer(load_config(config_path, from_deployed), log=lambda _: None).network.cpu()
    with torch.no_grad():
        picture = torch.rand(1, 3, 16, 16)
        torch.testing.assert_close(network(picture), trained(picture), atol=1e-5, rtol=0)


@pytest.mark.parametrize("expansion", [0, 4])
def test_weights_of_another_expansion_start_as_they_deploy(config_path, tmp_path, expansion):
    start = tmp_path / "start.safetensors"
    trained = stirred(build("realtime", 2, expansion=expansion))
    save_checkpoint(start, trained, "realtime")
    said = list[str]()
    config = load_config(config_path, [f"network.pretrain={start}"])
    network = Trainer(config, log=said.append).network.cpu()
    assert any(f"has expansion {expansion}, this run 2" in line for line in said)
    with torch.no_grad():
        picture = torch.rand(1, 3, 16, 16)
        torch.testing.assert_close(network(picture), trained(picture), atol=1e-5, rtol=0)


def test_weights_of_another_network_are_no_start(config_path, tmp_path, capsys):
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, build("stream", 2), "stream")
    with pytest.raises(SystemExit) as ended, exit_on_error("paragonsr2"):
        train(config_path, f"network.pretrain={start}")
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert re.fullmatch(r"paragonsr2: .*holds variant 'stream', not 'realtime'.*\n", said)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run(config_path, tmp_path, monkeypatch):
    train(config_path, stop_at=4)
    state = (tmp_path / "run" / STATE_FILE).read_bytes()
    monkeypatch.setattr(PixelLoss, "forward", lambda _self, sr, _hr: sr.mean() * float("nan"))
    with pytest.raises(TrainingError, match=r"lower schedule\.lr"):
        train(config_path, resume=True)
    assert (tmp_path / "run" / STATE_FILE).read_bytes() == state


def test_weights_that_are_no_numbers_never_replace_good_ones(config_path, tmp_path, monkeypatch):
    train(config_path, stop_at=4)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.s*")}
    forward = PixelLoss.forward

    def broken(self, sr, hr):
        sr.register_hook(lambda gradient: gradient * float("nan"))
        return forward(self, sr, hr)

    monkeypatch.setattr(PixelLoss, "forward", broken)
    with pytest.raises(TrainingError, match="weights are not finite at step 5"):
        train(config_path, "run.checkpoint_minutes=1e-9", resume=True)
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.s*")}


@contextlib.contextmanager
def files_of_at_most(size):
    """As on a disk with that much room: a longer file cannot be written."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_a_checkpoint_ends_the_run_and_keeps_the_last_one(
    config_path, tmp_path, capsys
):
    whole = train(config_path)
    output = f"run.output={tmp_path}/parts"
    before = train(config_path, output, stop_at=6)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "parts").glob("*.s*")}
    assert set(kept) == {STATE_FILE, "best.safetensors", "last.safetensors"}
    with (
        pytest.raises(SystemExit) as ended,
        exit_on_error("paragonsr2"),
        files_of_at_most(min(map(len, kept.values())) - 1),
    ):
        train(config_path, output, "run.checkpoint_minutes=1e-9", resume=True)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert re.fullmatch(rf"paragonsr2: cannot write {tmp_path}/parts/\S+: [\w ]+\n", said)
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "parts").glob("*.s*")}
    assert not [path for path in (tmp_path / "parts").iterdir() if is_temporary(path)]
    assert before + train(config_path, output, resume=True) == whole


# TensorBoard writes in a thread, which ends by the error that it hands on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("which", ["training.jsonl", "validation.jsonl", "tensorboard"])
def test_no_room_for_a_record_is_said(tmp_path, which):
    with Journal(tmp_path, 0) as journal:
        _no_room(journal, tmp_path, which)


def _no_room(journal, tmp_path, which):
    files = {"tensorboard": next((tmp_path / "tensorboard").iterdir())}
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    # One step: TensorBoard's thread would make an absent file anew.
    full.replace(files.get(which, tmp_path / which))
    record = functools.partial(journal.training, 1, {"loss": 0.1})
    if which == "validation.jsonl":
        record = functools.partial(journal.validation, 1, {"psnr_y": 30.0}, [])
    with pytest.raises(OutputError, match=rf"cannot write .*{which}.*: No space left"):
        record()


def test_tensorboard_gets_the_losses_and_crops_of_validation_pictures(config_path, tmp_path):
    train(config_path)
    (path,) = (tmp_path / "run" / "tensorboard").iterdir()
    values = [
        (event.step, value)
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    records = (tmp_path / "run" / "training.jsonl").read_text().splitlines()
    losses = {record["step"]: record["loss"] for record in map(json.loads, records)}
    assert losses == {
        step: pytest.approx(value.simple_value)
        for step, value in values
        if value.tag == "train/loss"
    }
    crops = [(step, value.image) for step, value in values if value.tag == "val/0.png"]
    assert [step for step, _ in crops] == [0, 6, 12]
    assert (crops[0][1].height, crops[0][1].width) == (60, 3 * 80)


@pytest.mark.parametrize("able", [True, False])
def test_a_cpu_that_emulates_bfloat16_is_warned_about(config_path, monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": able})
    lines = []
    Trainer(load_config(config_path, ["run.precision=bf16"]), log=lines.append)
    assert lines == ([] if able else [EMULATED])


def test_a_precision_that_the_device_lacks_is_refused(config_path, monkeypatch):
    with pytest.raises(TrainingError, match="fp16 needs a CUDA device"):
        Trainer(load_config(config_path, ["run.precision=fp16"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(TrainingError, match="this GPU has no bfloat16"):
        Trainer(load_config(config_path, ["run.precision=bf16", "run.device=auto"]))


def test_a_closed_gate_is_told():
    network = build("stream", 2).eval()
    with torch.no_grad():
        network.upsampler.last.weight.normal_()
        network.gate.map.bias.fill_(-20.0)
    hr = photo_like(32, 32, seed=1)
    found = validate(network, ValidationSet([Pair("0", hr, shrink(hr, 2))]), torch.device("cpu"))
    assert found.dead == "gate"
    assert found.record["gate_mean"] == pytest.approx(0.5)


def test_a_dead_detail_path_stops_the_run(config_path, monkeypatch):
    monkeypatch.setattr(PixelLoss, "forward", lambda _self, sr, _hr: sr.mean() * 0.0)
    with pytest.raises(TrainingError, match="detail has died"):
        train(config_path)


def test_processes_share_validation_and_know_the_same_result(make_stirred):
    network = make_stirred("stream")
    pictures = [photo_like(32 + 2 * i, 40, seed=i) for i in range(6)]
    pairs = [Pair(str(i), hr, shrink(hr, 2)) for i, hr in enumerate(pictures)]
    val, device = ValidationSet(pairs[:5], pairs[5:]), torch.device("cpu")
    alone = validate(network, val, device)
    shares = {}

    def measured_by(rank):
        def gather(mine):
            shares[rank] = mine
            return [one for other in sorted(shares) for one in shares[other]]

        return validate(network, val, device, Processes(rank, 2, gather=gather))

    measured_by(1)
    together = measured_by(0)
    assert together.record == alone.record
    assert [crop.name for crop in together.shown] == [crop.name for crop in alone.shown]
    assert {rank: len(mine) for rank, mine in shares.items()} == {0: 3, 1: 3}


def test_drawn_pictures_are_scored_beside_the_photographs(config_path, tmp_path):
    lines = []
    Trainer(load_config(config_path, ["data.val_drawn=2"]), log=lines.append).run()
    Trainer(load_config(config_path, [f"run.output={tmp_path}/without"]), log=lines.append).run()
    with_them, without = (
        [
            json.loads(line)
            for line in (tmp_path / name / "validation.jsonl").read_text().splitlines()
        ]
        for name in ("run", "without")
    )
    assert [{**one, **other} for one, other in zip(with_them, without, strict=True)] == with_them
    assert all(record["drawn_psnr_y"] != record["psnr_y"] for record in with_them)
    assert not any("drawn_psnr_y" in record for record in without)


def test_a_run_says_where_it_starts_what_it_gained_and_where_its_results_are(config_path, tmp_path):
    lines = []
    Trainer(load_config(config_path), log=lines.append).run()
    said = [line for line in lines if not line.startswith(("reading", "training", "warning"))]
    assert said[0].startswith("step 0  validation ")
    assert re.match(
        r"finished: best validation [\d.]+ dB at step \d+, [\d.]+ dB \w+ the start", said[-3]
    )
    assert said[-2] == f"best weights: {tmp_path}/run/best.safetensors"
    assert said[-1] == f"report: {tmp_path}/run/report.html"


def test_on_a_terminal_a_live_line_says_how_far_the_run_is(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with TrainingLine() as line:
        line.show_or_none(
            Progress(3, 1200, {"loss": 0.25, "pixel": 0.5}, 2.0, 600.0, "33.100 dB  SSIM 0.9000")
        )
        line.log("a line above")
    shown = terminal.getvalue()
    assert "a line above" in shown
    for fact in ("step 3/1,200", "2.0 steps/s", "10 min left", "loss 0.25", "pixel", "33.100 dB"):
        assert fact in shown


def test_without_a_terminal_there_are_lines_alone(capsys):
    with TrainingLine() as line:
        assert line.show_or_none is None
        line.log("step 2/4  loss 0.10000")
    assert capsys.readouterr().err == "step 2/4  loss 0.10000\n"


def test_a_folder_that_does_not_exist_is_said_before_anything_slow(config_path, tmp_path):
    code = (
        "import sys\n"
        "from paragonsr2.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    for override, said in (
        (
            f'data.train=["{tmp_path}/none"]',
            f"data.train: {tmp_path}/none does not exist; .*FOLDER",
        ),
        (f"data.val={tmp_path}/config.toml", "config.toml is a file, not a folder"),
    ):
        command = [sys.executable, "-c", code, "train", str(config_path), override]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert re.fullmatch(rf"paragonsr2: .*{said}.*\n", done.stderr)
    assert not (tmp_path / "run").exists()


def test_what_older_runs_wrote_up_to_the_resumed_step_stays_in_tensorboard(tmp_path):
    for start, steps in ((0, (0, 3, 6, 9)), (6, (9, 12))):
        with Journal(tmp_path, start) as journal:
            for step in steps:
                journal.training(step, {"loss": start + step})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    records = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert records == [(0, 0), (3, 3), (6, 6), (9, 15), (12, 18)]


def test_bad_data_is_said(config_path, tmp_path):
    (tmp_path / "train" / "broken.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match="smaller than a crop"):
        train(config_path, "data.patch=64")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="no images"):
        train(config_path, f"data.val={tmp_path}/empty")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.stepps=3", "nearest known: steps"),
        ("scedule.steps=3", "nearest known: schedule"),
        ("schedule.steps=0", "greater than or equal to 1"),
        ("network.variant=huge", "realtime"),
        ("nonsense", "section.key=value"),
        ("data.train=[{path='x', weigth=2}]", "nearest known: weight"),
        ("loss.pixle.kind=l1", "nearest known: pixel"),
        ("loss.pixel.kindd=l1", "nearest known: kind"),
        ("loss.pixel.weight=0", "greater than 0"),
        ("loss.artefact.start=100", "no term counts in the first steps"),
        ("run.seed=-1", r"run\.seed.*greater than or equal to 0"),
    ],
)
def test_configuration_mistakes(config_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(config_path, [override])


def test_unreadable_configuration(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 3")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "bad.toml")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_configurations_run_two_steps_and_name_the_schema(path, tmp_path):
    assert path.read_text().startswith("#:schema ./schema.json\n")
    config = load_config(path)
    # A clip needs 64 low-resolution pixels on both sides.
    more = 68 * (config.network.scale - 2) if config.degradation.kind == "codec" else 0
    for name, size in (("train", (136, 140)), ("val", (136, 132))):
        (tmp_path / name).mkdir()
        picture = photo_like(*(side + more for side in size), seed=1)
        Image.fromarray(picture).save(tmp_path / name / "0.png")
    small = [f'data.train=["{tmp_path}/train"]', f"data.val={tmp_path}/val", "data.patch=16"]
    small += ["data.batch=2", f"data.cache={tmp_path}/cache", "schedule.steps=2"]
    small += ["run.threads=1", "run.device=cpu", "run.compile=false", f"run.output={tmp_path}/run"]
    if config.degradation.kind == "codec":
        small += ["degradation.cached_clips=2", "degradation.codec.frames=[2, 2]"]
    if config.data.drawn:
        small.append("data.drawn=4")
    if config.data.val_drawn:
        small.append("data.val_drawn=1")
    if config.degradation.cached_regions:
        small.append("degradation.cached_regions=2")
    net = config.network
    if net.pretrain is not None:
        start = tmp_path / "start.safetensors"
        save_checkpoint(start, build(net.variant, 2, expansion=net.expansion), net.variant)
        small.append(f"network.pretrain={start}")
    lines = []
    Trainer(load_config(path, small), log=lines.append).run()
    assert not [line for line in lines if "unusual" in line]
    load_checkpoint(tmp_path / "run" / "last.safetensors", arch=net.variant, scale=net.scale)


def test_the_schema_for_editors_is_current_and_knows_no_null():
    tool = runpy.run_path(str(ROOT / "tools" / "schema.py"))
    text = (ROOT / "configs" / "schema.json").read_text(encoding="utf-8")
    assert text == tool["schema_text"](), "run: python tools/schema.py"
    assert "null" not in text
    sections = json.loads(text)["$defs"].values()
    assert all(section["additionalProperties"] is False for section in sections)


def test_crops_are_pairs_and_depend_on_seed_and_step_only():
    pictures = [photo_like(60 + 8 * i, 80, seed=i) for i in range(3)]
    pairs = [Pair(str(i), hr, shrink(hr, 2)) for i, hr in enumerate(pictures)]
    sampler = CropSampler(pairs, 2, 12, seed=5)
    lr, hr = sampler.batch(17, range(8))
    assert lr.shape == (8, 12, 12, 3)
    assert hr.shape == (8, 24, 24, 3)
    # A shrink of the crop is the crop of the shrink, but for its border.
    small = hr.reshape(8, 12, 2, 12, 2, 3).mean(axis=(2, 4))
    assert np.abs(small - lr)[:, 3:-3, 3:-3].mean() < 6
    parts = [sampler.batch(17, range(3)), sampler.batch(17, range(3, 8))]
    for whole, pieces in zip((lr, hr), zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(pieces))
    assert not np.array_equal(lr, sampler.batch(18, range(8))[0])
    assert not np.array_equal(lr, CropSampler(pairs, 2, 12, seed=6).batch(17, range(8))[0])


# The compiler of this torch uses what this torch warns about.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_has_the_losses_of_one_that_is_not(config_path, tmp_path):
    eager, compiled = (
        [
            float(line.rsplit(" ", 1)[1])
            for line in train(
                config_path, f"run.output={tmp_path}/{name}", f"run.compile={name}", "run.threads=1"
            )
        ]
        for name in ("false", "true")
    )
    assert eager
    assert compiled == pytest.approx(eager, abs=1e-4)


def test_schedule_warms_up_and_decays():
    schedule = ScheduleConfig(steps=100, lr=1.0, final_lr=0.1, warmup=10)
    rates = [learning_rate(schedule, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_training_imports_nothing_that_reads_images_natively():
    code = (
        "import sys, paragonsr2.training.loop\n"
        "assert not {'pyvips', 'av', 'kornia', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
def test_muon_steps_in_every_direction_alike(shape):
    torch.manual_seed(0)
    gradient = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalised(gradient))
    assert values.min() > 0.2
    assert values.max() < 1.4
    kernel = torch.nn.Parameter(torch.zeros(*shape, 3, 3))
    kernel.grad = torch.randn_like(kernel)
    Muon([kernel], lr=0.5).step()
    assert kernel.detach().square().mean().sqrt() == pytest.approx(0.5 * 0.2, rel=0.3)
    assert (kernel.detach() * kernel.grad).sum() < 0


def test_muon_resumes_as_uninterrupted(config_path, tmp_path):
    muon = "schedule.optimizer='muon'"
    whole = train(config_path, muon)
    assert whole != train(config_path, f"run.output={tmp_path}/adam")
    parts = f"run.output={tmp_path}/parts"
    before = train(config_path, muon, parts, stop_at=5)
    assert before + train(config_path, muon, parts, resume=True) == whole


def test_batches_and_crops_grow(config_path, tmp_path):
    grow = "data.grow=[{step=3,batch=2,patch=20},{step=5,batch=6,patch=16}]"
    trainer = Trainer(load_config(config_path, [grow]), log=lambda _: None)
    sampler, _ = trainer.prepare_data()
    with contextlib.closing(trainer.batches(sampler)) as batches:
        shapes = [tuple(lr.shape) for lr, _ in itertools.islice(batches, 7)]
    assert shapes == [(4, 3, 12, 12)] * 3 + [(2, 3, 20, 20)] * 2 + [(6, 3, 16, 16)] * 2
    whole = train(config_path, grow)
    parts = f"run.output={tmp_path}/parts"
    before = train(config_path, grow, parts, stop_at=4)
    assert before + train(config_path, grow, parts, resume=True) == whole
    with pytest.raises(ConfigError, match="ascending"):
        load_config(
            config_path, ["data.grow=[{step=5,batch=2,patch=20},{step=3,batch=2,patch=20}]"]
        )
    with pytest.raises(TrainingError, match="does not divide"):
        train(config_path, grow, "schedule.accumulate=4", f"run.output={tmp_path}/uneven")


def test_one_pixel_term_takes_over_from_another(config_path, tmp_path):
    change = ('loss.pixel={kind="l1",end=4}', 'loss.finish={kind="psnr",start=4}')
    config = load_config(config_path, change)
    losses = GeneratorLosses(config.loss)
    sr, hr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    early, late = (losses(step, sr, hr) for step in (3, 4))
    assert set(early.terms) == {"pixel"}
    assert set(late.terms) == {"finish"}
    assert float(late.total) == float(PixelLoss(config.loss.finish)(sr, hr))
    train(config_path, *change)
    for wrong in ("loss.finish={start=5}", "loss.finish={start=4,ramp=2,end=4}"):
        with pytest.raises(ConfigError, match=r"no term counts|end must"):
            load_config(config_path, [change[0], wrong])
