"""LPIPS and DISTS of pyiqa, which is imported only by runs that use them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from paragonsr2.errors import MissingExtraError, TrainingError
from paragonsr2.process import variable
from paragonsr2.training.loss_terms import PairLoss

#: Files that each metric reads, below ``torch.hub.get_dir()``.
METRIC_WEIGHTS = {
    "lpips": ("checkpoints/alexnet-owt-7be5be79.pth", "pyiqa/LPIPS_v0.1_alex-df73285e.pth"),
    "dists": ("checkpoints/vgg16-397923af.pth", "pyiqa/DISTS_weights-f5e65c96.pth"),
}


class PyiqaLoss(PairLoss):
    """A distance in the features of a trained network.

    Args:
        name: ``lpips`` or ``dists``.
        device: where to compute.
        allow_download: whether missing weights may be downloaded.
        log: receives, before any download, which weights are used.

    Raises:
        MissingExtraError: pyiqa is not installed.
        TrainingError: pyiqa cannot be loaded, or weights are missing and may not or cannot be
            downloaded.
    """

    def __init__(
        self,
        name: str,
        device: torch.device | str,
        allow_download: bool,
        log: Callable[[str], None],
    ) -> None:
        super().__init__()
        try:
            pyiqa = importlib.import_module("pyiqa")
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"loss.{name}", "perceptual") from error
        except (ImportError, RuntimeError, AttributeError) as error:
            # A torchvision of another build than torch fails in any of these ways.
            raise TrainingError(
                f"pyiqa does not load here ({error}); fix its installation or remove loss.{name}"
            ) from error
        self._announce(name, allow_download, log)
        try:
            with _weights_only():
                metric: nn.Module = pyiqa.create_metric(name, as_loss=True, device=device)
        except (OSError, RuntimeError) as error:
            raise TrainingError(
                f"cannot load the weights of loss.{name} ({error}); remove it to train without it"
            ) from error
        self.metric = metric.requires_grad_(False).eval()

    @staticmethod
    def _announce(name: str, allow_download: bool, log: Callable[[str], None]) -> None:
        folder = Path(torch.hub.get_dir())
        missing = [file for file in METRIC_WEIGHTS[name] if not (folder / file).is_file()]
        if not missing:
            log(f"loss.{name} uses the weights cached in {folder}")
            return
        names = " and ".join(Path(file).name for file in missing)
        if not allow_download:
            raise TrainingError(
                f"loss.{name} needs {names}, which are not in {folder}; set "
                f"loss.allow_download=true to download them, or remove loss.{name}"
            )
        log(f"downloading {names} into {folder}; remove loss.{name} to go without")

    def train(self, mode: bool = True) -> PyiqaLoss:
        """Set the mode; the metric, which has dropout, stays in evaluation mode."""
        super().train(mode)
        self.metric.eval()
        return self

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """See the class; in float32, as its weights are."""
        return self.metric(sr.float(), hr.float())


def _weights_only() -> AbstractContextManager[None]:
    """Restrict ``torch.load`` to tensors: pyiqa itself would unpickle anything."""
    return variable("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
