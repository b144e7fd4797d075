"""Translate a traiNNer-redux YAML for a paragonsr2 network into our configuration.

Keys with a counterpart are translated; all others are listed, so that nothing is lost silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paragonsr2.errors import ConfigError

Table = dict[str, Any]

SUFFIXES = {".yml", ".yaml"}
MAX_BYTES = 1_000_000
PREFIX = "paragonsr2_"

#: Their keys with the same meaning as one of ours.
SAME = {
    "network_g.upsampler_alpha": "network.upsampler_alpha",
    "network_g.use_checkpointing": "network.checkpointing",
    "network_g.gradient_checkpointing": "network.checkpointing",
    "path.pretrain_network_g": "network.pretrain",
    "train.total_iter": "schedule.steps",
    "train.ema_decay": "schedule.ema",
    "train.optim_g.lr": "schedule.lr",
    "train.optim_g.betas": "schedule.betas",
    "train.scheduler.eta_min": "schedule.final_lr",
    "manual_seed": "run.seed",
    "use_compile": "run.compile",
    "val.val_freq": "run.validate_every",
    "logger.print_freq": "run.log_every",
}

#: Their keys that, with one of these values, describe what is always the case here.
ALWAYS = {
    "use_channels_last": (True,),
    "fast_matmul": (False,),
    "deterministic": (False,),
    "datasets.train.use_hflip": (True,),
    "datasets.train.use_rot": (True,),
    "datasets.train.filename_tmpl": ("{}",),
    "network_g.use_content_aware": (True,),
    "network_g.attention_mode": ("sdpa",),
    "network_d.num_in_ch": (3,),
    "path.strict_load_g": (True,),
    "train.grad_clip": (True,),
    "train.use_moa": (False,),
    "train.optim_g.type": ("Adam", "AdamW", "adam", "adamw"),
    "train.optim_g.weight_decay": (0,),
    "train.optim_d.type": ("Adam", "AdamW", "adam", "adamw"),
    "train.optim_d.weight_decay": (0,),
    "train.scheduler.type": ("CosineAnnealingLR", "cosineannealinglr"),
    "val.val_enabled": (True,),
    "logger.use_tb_logger": (True,),
    "logger.save_checkpoint_format": ("safetensors",),
}

#: Their keys that only name things, or repeat what other keys say.
NAMES = (
    "datasets.train.name",
    "datasets.train.type",
    "datasets.val.name",
    "datasets.val.type",
)

#: What applies here instead.
INSTEAD = {
    "num_gpu": "data.batch counts the crops of all processes",
    "datasets.train.filename_tmpl": "partners have the same names",
    "datasets.train.num_worker_per_gpu": "data.workers",
    "train.grad_clip": "the gradient's norm is always limited to schedule.clip",
    "train.optim_g.type": "Adam",
    "train.optim_d.type": "Adam",
    "train.scheduler.type": "a cosine from schedule.lr to schedule.final_lr",
    "val.val_enabled": "validation chooses the best checkpoint",
    "logger.save_checkpoint_freq": "run.checkpoint_minutes",
    "network_d.type": "MUNet",
    "path.resume_state": "--resume",
}

#: Their type of loss: our term and its options.
LOSSES: dict[str, tuple[str, Table]] = {
    "l1loss": ("pixel", {"kind": "l1"}),
    "charbonnierloss": ("pixel", {"kind": "charbonnier"}),
    "mseloss": ("pixel", {"kind": "mse"}),
    "mssimloss": ("ms_ssim", {}),
    "ldlloss": ("artefact", {}),
    "distsloss": ("dists", {}),
    "featurematchingloss": ("features", {}),
    "r3ganloss": ("adversarial", {"kind": "relativistic"}),
}
ADVERSARIAL = {"vanilla": "nonsaturating", "hinge": "hinge", "r3gan": "relativistic"}
#: The older form: one section per loss instead of a list.
OLDER_LOSSES = tuple(
    f"train.{name}_opt"
    for name in ("pixel", "mssim", "perceptual", "dists", "ldl", "gan", "color", "luma", "avg")
)
LOSS_DEFAULTS = {"criterion": ("l1",), "reduction": ("mean",)}


@dataclass(frozen=True)
class Translation:
    """A configuration in our form.

    Attributes:
        table: as parsed TOML.
        ignored: keys without a counterpart, with what applies instead.
    """

    table: Table
    ignored: list[str]


def read_options(path: Path) -> Table:
    """Parse a YAML file safely: it cannot construct objects.

    Raises:
        ConfigError: it is unreadable, larger than :data:`MAX_BYTES`, or not a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path} is not a configuration: it has more than {MAX_BYTES} bytes")
        options = yaml.safe_load(content)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not valid YAML: {reason}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{path} is not a traiNNer-redux configuration: it has no keys")
    return options


class _Options:
    """Nested options, read by dotted key; remembers which keys were never read."""

    def __init__(self, root: Table) -> None:
        self.root = root
        self.taken: set[str] = set()

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key; null counts as missing."""
        self.taken.add(key)
        inner: Any = self.root
        for name in key.split("."):
            inner = inner.get(name) if isinstance(inner, dict) else None
        return default if inner is None else inner

    def left(self) -> list[tuple[str, Any]]:
        """Keys and values that were never read."""
        return self._leaves(self.root, "", depth=3)

    def _leaves(self, options: Table, prefix: str, depth: int) -> list[tuple[str, Any]]:
        """Down to ``depth`` levels; options are not nested more deeply."""
        found: list[tuple[str, Any]] = []
        for key, value in options.items():
            place = f"{prefix}{key}"
            if place in self.taken or value is None:
                continue
            if isinstance(value, dict) and depth > 1:
                found += self._leaves(value, f"{place}.", depth - 1)
            else:
                found.append((place, value))
        return found


def translate(root: Table) -> Translation:
    """Translate the options of a traiNNer-redux run into our configuration.

    Args:
        root: the options as parsed.

    Raises:
        ConfigError: the network is not one of ours, or options contradict each other.
    """
    options, table = _Options(root), Table()
    ignored: list[str] = []
    for key in NAMES:
        options.take(key)
    _network(options, table)
    _data(options, table, ignored)
    _losses(options, table, ignored)
    _discriminator(options, table, ignored)
    _run(options, table)
    for theirs, ours in SAME.items():
        if (value := options.take(theirs)) is not None:
            _put(table, ours, value)
    for key, values in ALWAYS.items():
        if (value := options.take(key)) is not None and value not in values:
            ignored.append(_described(key, value))
    ignored += [_described(key, value) for key, value in options.left()]
    return Translation(table, sorted(_printable(line) for line in ignored))


def _network(options: _Options, table: Table) -> None:
    kind = str(options.take("network_g.type", "")).lower()
    if not kind.startswith(PREFIX):
        raise ConfigError(
            f"network_g.type {kind!r} is not one of ours; use {PREFIX}realtime, {PREFIX}stream, "
            f"{PREFIX}photo or {PREFIX}pro"
        )
    _put(table, "network.variant", kind.removeprefix(PREFIX))
    scale, inner = options.take("scale"), options.take("network_g.scale")
    if scale is not None and inner is not None and scale != inner:
        raise ConfigError(f"scale is {scale}, but network_g.scale is {inner}; make them equal")
    _put(table, "network.scale", inner if scale is None else scale)


def _data(options: _Options, table: Table, ignored: list[str]) -> None:
    for part in ("train", "val"):
        folders = _folders(options, f"datasets.{part}")
        if part == "train" and folders:
            _put(table, "data.train", folders)
        elif folders:
            _put(table, "data.val", folders[0])
            if len(folders) > 1:
                ignored.append("datasets.val.dataroot_gt after the first folder")

    if options.take("high_order_degradation", False):
        _put(table, "degradation.kind", "blind")
        ignored.append("ranges and probabilities of degradations (instead: [degradation])")

    lq_size = options.take("datasets.train.lq_size")
    gt_size = options.take("datasets.train.gt_size")
    scale = table["network"]["scale"]
    if gt_size is not None:
        whole = _count(gt_size, "datasets.train.gt_size")
        scale = _count(scale, "scale")
        if whole % scale or lq_size not in (None, whole // scale):
            raise ConfigError(f"datasets.train.gt_size {whole} is not lq_size times {scale}")
        lq_size = whole // scale
    if lq_size is not None:
        _put(table, "data.patch", lq_size)

    batch = options.take("datasets.train.batch_size_per_gpu")
    parts = _count(options.take("datasets.train.accum_iter", 1), "datasets.train.accum_iter")
    gpus = options.take("num_gpu", 1)
    if gpus == "auto":
        ignored.append(_described("num_gpu", gpus))
        gpus = 1
    if batch is not None:
        share = _count(batch, "datasets.train.batch_size_per_gpu")
        _put(table, "data.batch", share * parts * _count(gpus, "num_gpu"))
    if parts > 1:
        _put(table, "schedule.accumulate", parts)


def _folders(options: _Options, section: str) -> list[Any]:
    """The folders of a data set: paths, or tables with path and lr for pairs."""
    hr = _list(options.take(f"{section}.dataroot_gt"))
    lr = _list(options.take(f"{section}.dataroot_lq"))
    if not lr:
        return hr
    if len(lr) != len(hr):
        raise ConfigError(
            f"{section} has {len(hr)} folders in dataroot_gt and {len(lr)} in dataroot_lq; "
            "give each its partner"
        )
    return [{"path": one, "lr": other} for one, other in zip(hr, lr, strict=True)]


def _losses(options: _Options, table: Table, ignored: list[str]) -> None:
    entries = [("train.losses", entry) for entry in _list(options.take("train.losses"))]
    older = [(key, options.take(key)) for key in OLDER_LOSSES]
    entries += [(key, entry) for key, entry in older if entry is not None]

    terms: Table = table.setdefault("loss", {})
    for place, entry in entries:
        if not isinstance(entry, dict) or "type" not in entry:
            ignored.append(place)
            continue
        rest = dict(entry)
        kind = str(rest.pop("type"))
        weight = rest.pop("loss_weight", rest.pop("gan_weight", 1.0))
        if weight == 0:
            continue  # their way to switch a loss off
        term, fixed = LOSSES.get(kind.lower(), ("", {}))
        if kind.lower() == "ganloss":
            adversarial = ADVERSARIAL.get(str(rest.pop("gan_type", "vanilla")))
            term, fixed = ("adversarial", {"kind": adversarial}) if adversarial else ("", {})
        if not term or term in terms:
            ignored.append(f"{place} of type {kind}")
            continue
        start = rest.pop("start_iter", 0)
        terms[term] = {**fixed, "weight": weight, **({"start": start} if start else {})}
        for key, value in rest.items():
            if value is not None and value not in LOSS_DEFAULTS.get(key, ()):
                ignored.append(f"{place}: {key} of {kind}")


def _discriminator(options: _Options, table: Table, ignored: list[str]) -> None:
    if "adversarial" not in table["loss"]:
        return
    kind = options.take("network_d.type", "munet")
    if str(kind).lower() == "munet":
        for key in ("num_feat", "ch_mult"):
            if (value := options.take(f"network_d.{key}")) is not None:
                _put(table, f"discriminator.{key}", value)
    else:
        ignored.append(_described("network_d.type", kind))
    for key in ("lr", "betas"):
        if (value := options.take(f"train.optim_d.{key}")) is not None:
            _put(table, f"discriminator.{key}", value)


def _run(options: _Options, table: Table) -> None:
    name = str(options.take("name", "trainner"))
    if Path(name).name != name or name == "..":
        raise ConfigError(f"name {name!r} must be the name of a folder, without slashes")
    _put(table, "run.output", f"runs/{name}")
    mixed = options.take("use_amp", False)
    options.take("amp_bf16")  # auto uses bf16 where the device supports it
    _put(table, "run.precision", "auto" if mixed else "fp32")
    warmup = options.take("train.warmup_iter", -1)
    _put(table, "schedule.warmup", 0 if warmup == -1 else warmup)


def _put(table: Table, key: str, value: Any) -> None:
    section, name = key.split(".")
    table.setdefault(section, {})[name] = value


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _count(value: Any, key: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key} must be a whole number of at least 1, not {str(value)[:40]!r}")
    return value


def _described(key: str, value: Any) -> str:
    text = f"{key} = {str(value)[:40]}" if isinstance(value, (str, int, float)) else key
    return f"{text} (instead: {INSTEAD[key]})" if key in INSTEAD else text


def _printable(text: str) -> str:
    """Replace control characters, with which a file could control the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
