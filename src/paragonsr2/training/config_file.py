"""Read a training configuration: file, overrides, and messages that name the mistake."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from paragonsr2.errors import ConfigError
from paragonsr2.training.config import DataConfig, TrainConfig
from paragonsr2.training.trainner import SUFFIXES as YAML_SUFFIXES
from paragonsr2.training.trainner import read_options, translate


def load_config(
    path: Path, overrides: Sequence[str] = (), log: Callable[[str], None] = print
) -> TrainConfig:
    """Read a configuration and apply ``section.key=value`` overrides, values in TOML syntax.

    Args:
        path: a TOML file, or a traiNNer-redux YAML file for one of our networks.
        overrides: applied after the file and before validation.
        log: receives the list of YAML keys that have no counterpart here.

    Raises:
        ConfigError: the file is unreadable, a key is unknown (the message names the nearest known
            key), or a value is invalid.
    """
    table = _read_yaml(path, log) if path.suffix.lower() in YAML_SUFFIXES else _read_toml(path)
    for override in overrides:
        _apply(table, override)
    try:
        return TrainConfig.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error


def check_folders(data: DataConfig) -> None:
    """Check that every folder in ``[data]`` exists; takes no time, so call it first.

    Raises:
        ConfigError: a folder does not exist, or is a file.
    """
    named = [("data.val", data.val.path), ("data.val", data.val.lr)]
    for folder in data.folders:
        named += [("data.train", folder.path), ("data.train", folder.lr)]
    for key, path in named:
        if path is None or path.is_dir():
            continue
        example = f"'{key}=[\"FOLDER\"]'" if key == "data.train" else f"{key}=FOLDER"
        problem = "is a file, not a folder" if path.exists() else "does not exist"
        start = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise ConfigError(
            f"{key}: {path} {problem}{start}; edit the configuration, or pass {example} "
            "with a folder of pictures"
        )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _read_yaml(path: Path, log: Callable[[str], None]) -> dict[str, Any]:
    translation = translate(read_options(path))
    if translation.ignored:
        log(f"{path.name}: ignored, no counterpart here: {'; '.join(translation.ignored)}")
    return translation.table


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or "." not in key:
        raise ConfigError(f"'{override}' is not an override; write section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word or path is a string
    *sections, name = key.split(".")
    inner: Any = table
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"'{override}': {section} is a value, not a section")
    inner[name] = value


def _explain(error: ValidationError) -> str:
    messages: list[str] = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            messages.append(f"unknown key {place}{_nearest(problem['loc'])}")
        else:
            messages.append(f"{place}: {problem['msg']}")
    return "; ".join(messages)


def _nearest(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = TrainConfig
    for part in location[:-1]:
        if isinstance(part, int):
            continue  # an index into a list, whose sections are all of one kind
        field = model.model_fields.get(part)
        inner = None if field is None else _section_of(field.annotation)
        if inner is None:
            return ""
        model = inner
    near = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1, cutoff=0.0)
    return f" (nearest known: {near[0]})" if near else ""


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as ``Model | None`` or ``list[Model]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for kind in get_args(annotation) if (model := _section_of(kind))), None)
