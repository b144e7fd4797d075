"""What several tests need."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paragonsr2.export.graph_writing import build_onnx
from paragonsr2.network.generator import ParagonSR2, build
from paragonsr2.variants import VARIANTS
from paragonsr2.weights.metadata import GraphPrecision

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("PARAGONSR2_DATA", ROOT.parent / "shared" / "data"))

# Workers of pytest-xdist share the processors.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

# The same arithmetic on every machine: some would compute in bfloat16.
os.environ["PARAGONSR2_PRECISION"] = "fp32"

# In a shell's background Ctrl-C is ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than small pictures do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data() -> Path:
    """The training, validation and benchmark images, which a clone does not have."""
    if not DATA.is_dir():
        pytest.skip(f"no image data in {DATA}; set PARAGONSR2_DATA")
    return DATA


def stirred(network: ParagonSR2, strength: float = 0.05) -> ParagonSR2:
    """``network`` with weights that are neither zero nor special anywhere."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * strength)
    return network.eval()


def small(
    variant: str, scale: int = 2, *, groups: int | None = None, blocks: int = 2
) -> ParagonSR2:
    """A shallow network of a variant's kind, quick enough to prove properties on.

    Two groups where there is attention, one plain and one shifted.
    """
    torch.manual_seed(3)
    row = VARIANTS[variant]
    groups = groups or (2 if row.window else 1)
    attending = tuple(range(groups)) if row.window else ()
    row = replace(row, groups=groups, blocks=blocks, attending=attending)
    return stirred(ParagonSR2(row, scale), 0.02 if row.window else 0.05)


@functools.cache
def network_of(variant: str, scale: int) -> ParagonSR2:
    """A network to export: whole where that is quick, else what holds all that the depth holds.

    Most of the time of an export goes into attention: one network shows it plain and shifted.
    """
    if variant in ("photo", "pro"):
        return small(variant, scale, groups=2 if (variant, scale) == ("photo", 2) else 1)
    torch.manual_seed(3)
    return stirred(build(variant, scale), 0.02)


@functools.cache
def _graph(variant: str, scale: int, opset: int, precision: GraphPrecision) -> bytes:
    network = network_of(variant, scale)
    training = {"steps": 3}
    return build_onnx(network, variant, precision=precision, opset=opset, training=training)


def exported(
    variant: str, scale: int, opset: int = 18, precision: GraphPrecision = "fp32"
) -> bytes:
    """The graph of :func:`network_of`; made once for all tests, for that takes seconds."""
    return _graph(variant, scale, opset, precision)  # to a cache a default is another call


@pytest.fixture
def make_small() -> Callable[..., ParagonSR2]:
    return small


@pytest.fixture
def make_stirred() -> Callable[..., ParagonSR2]:
    def make(variant: str, scale: int = 2, **options: object) -> ParagonSR2:
        torch.manual_seed(3)
        return stirred(build(variant, scale, **options), 0.02)

    return make


def photo_like(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth uint8 picture with edges and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        127 + 70 * np.sin(x / (5 + c)) * np.cos(y / (7 + c)) + 40 * ((x + y) % 32 < 16)
        for c in range(channels)
    ]
    noisy = np.stack(planes, axis=-1) + rng.normal(0, 4, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A service, see serving.py; requests leave no file behind."""
    from serving import LIMITS, serving

    with serving(tmp_path_factory.mktemp("service"), LIMITS) as running:
        yield running
    assert running.files() == []
    assert running.parts.spool.used == 0


@pytest.fixture
def make_running(tmp_path):
    """A service of its own, with limits of its own."""
    from serving import LIMITS, serving

    def make(limits=LIMITS, **options):
        return serving(tmp_path / "service", limits, **options)

    return make


# Of Playwright there is one at a time in a process, and some tests start their own.
@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    from benchmark.gpu_stand_ins import MissingToolError
    from benchmark.web_page import chromium

    try:
        with chromium() as found:
            yield found
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def page_service(tmp_path_factory):
    """A service with the page."""
    pytest.importorskip("prometheus_client", reason="the extra app is not installed")
    pytest.importorskip("fastapi_offline", reason="the extra app is not installed")
    from paragonsr2.app.routes import page_routes
    from serving import LIMITS, serving

    limits = replace(LIMITS, body_bytes=300_000, drop_oldest=True)
    pages = page_routes(limits, local=True)
    with serving(tmp_path_factory.mktemp("service"), limits, pages=pages) as found:
        yield found


@pytest.fixture
def visit(browser, page_service):
    """Opens the page for another visitor."""
    from visiting import DESK, PATIENCE, open_page

    contexts = []

    def visit(**options):
        contexts.append(browser.new_context(**({"viewport": DESK} | options)))
        contexts[-1].set_default_timeout(PATIENCE)
        return open_page(contexts[-1], page_service)

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def desk(browser):
    """A visitor's browser, for the page at a desk."""
    from visiting import DESK, PATIENCE

    context = browser.new_context(viewport=DESK, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def at_desk(desk, page_service):
    """The page in a tab."""
    from visiting import open_page

    page = open_page(desk, page_service)
    yield page
    page.close()
