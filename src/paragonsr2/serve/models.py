"""The models that a service has open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from paragonsr2.serve.choice import CLASSICAL
from paragonsr2.serve.gather import GatheringBackend
from paragonsr2.serve.limits import Limits
from paragonsr2.upscale.upscaler import TileOption, Upscaler
from paragonsr2.weights.metadata import BackendName, Precision


@dataclass(frozen=True)
class Engine:
    """How networks run; see :class:`~paragonsr2.upscale.upscaler.Upscaler`."""

    backend: BackendName = "auto"
    device: str = "auto"
    precision: Precision = "auto"
    tile: TileOption = "auto"


class Models:
    """Opens models when they are first used, and keeps the most recently used ones.

    Threads may share it, and the upscalers that it gives.

    Args:
        engine: how networks run; classical baselines need no engine.
        limits: how many stay open, and how many tiles go into one call.
        observe: called with the number of tiles of each call of an engine.
    """

    def __init__(self, engine: Engine, limits: Limits, observe: Callable[[int], None]) -> None:
        self._engine, self._limits, self._observe = engine, limits, observe
        self._open: OrderedDict[tuple[str, int], Upscaler] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, model: str, scale: int) -> Upscaler:
        """The upscaler of a model.

        Args:
            model: a key of :func:`~paragonsr2.serve.choice.offered`, or one at a strength; see
                :attr:`~paragonsr2.serve.choice.Choice.opened`.
            scale: a scale that it is offered with.

        Raises:
            EnvironmentProblem: the weights cannot be used, or the engine cannot run them here.
        """
        key = (model, scale)
        with self._lock:
            if key not in self._open:
                self._open[key] = self._gathering(model, scale)
                if len(self._open) > self._limits.models:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
            return self._open[key]

    def _gathering(self, model: str, scale: int) -> Upscaler:
        engine = Engine(tile=self._engine.tile) if model in CLASSICAL else self._engine
        upscaler = Upscaler(
            model,
            scale,
            backend=engine.backend,
            device=engine.device,
            precision=engine.precision,
            tile=engine.tile,
        )
        gathering = GatheringBackend(upscaler.backend, self._limits.together, self._observe)
        return upscaler.over(gathering)
