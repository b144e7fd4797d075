"""Properties of MUNet and of the game it plays."""

from __future__ import annotations

import pytest
import torch

from paragonsr2.errors import OptionError
from paragonsr2.network.discriminator import BRANCHES, MUNet
from paragonsr2.training.adversarial import (
    NOISE,
    discriminator_loss,
    generator_loss,
    steepness,
)

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("nonsaturating", "hinge", "relativistic")


def small(branches=BRANCHES):
    torch.manual_seed(0)
    return MUNet(8, (1, 2, 2), branches)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
@pytest.mark.parametrize("ch_mult", [(1, 2, 2), (1, 2, 4, 8)])
def test_there_is_a_logit_and_a_share_of_each_branch_per_pixel(size, ch_mult):
    x = torch.rand(2, 3, *size)
    judged = MUNet(8, ch_mult).inspect(x)
    assert judged.logits.shape == (2, 1, *size)
    assert judged.fusion.shape == (2, 4, *size)
    torch.testing.assert_close(judged.fusion.sum(dim=1), torch.ones(2, *size))
    assert torch.isfinite(judged.logits).all()


@pytest.mark.parametrize("branch", BRANCHES)
def test_each_branch_alone_passes_a_gradient_to_every_pixel(branch):
    x = torch.rand(1, 3, 36, 44, requires_grad=True)
    small((branch,))(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.abs().sum(dim=1) > 0).float().mean() > 0.95


def test_all_branches_together_get_a_gradient():
    network = small()
    network(torch.rand(1, 3, 32, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        if "attention" not in name or name.endswith("gain"):  # its gain starts at zero
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_spectral_norms_stay_near_one_while_it_learns():
    network = small()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(20):
        logits = network(torch.rand(4, 3, 32, 32))
        loss = discriminator_loss("hinge", *logits.chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    checked = 0
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            norm = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
            assert norm <= 1.05
            checked += 1
    assert checked > 10


def test_a_flat_picture_gives_finite_gradients():
    for value in (0.0, 0.5, 1.0):
        x = torch.full((1, 3, 32, 32), value, requires_grad=True)
        small()(x).sum().backward()
        assert torch.isfinite(x.grad).all()


def test_what_makes_no_discriminator_is_refused():
    with pytest.raises(OptionError, match="take some of"):
        MUNet(8, (1, 2), ("spatial", "temporal"))
    with pytest.raises(OptionError, match="none"):
        MUNet(8, (1, 2), ())
    with pytest.raises(OptionError, match=r"data\.patch"):
        small()(torch.rand(1, 3, 31, 64))


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_pull_apart_and_together(kind):
    real = torch.zeros(2, 1, 4, 4, requires_grad=True)
    fake = torch.zeros(2, 1, 4, 4, requires_grad=True)
    by_real, by_fake = torch.autograd.grad(discriminator_loss(kind, real, fake), (real, fake))
    assert (by_real < 0).all()
    assert (by_fake > 0).all()
    (by_fake,) = torch.autograd.grad(generator_loss(kind, real, fake), fake)
    assert (by_fake < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_have_right_gradients(kind):
    real, fake = torch.randn(2, 2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    for loss in (generator_loss, discriminator_loss):
        assert torch.autograd.gradcheck(lambda r, f, loss=loss: loss(kind, r, f), (real, fake))


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_alone_gets_what_it_wants(kind):
    """Of a frozen judge the generator's loss falls; of fixed pictures the judge's does."""
    network = small()
    torch.manual_seed(0)
    real = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8), size=32, mode="bicubic")
    fake = torch.rand(2, 3, 32, 32, requires_grad=True)
    for learner in (network.parameters(), [fake]):
        optimizer = torch.optim.Adam(learner, lr=5e-3)
        loss_of = generator_loss if learner == [fake] else discriminator_loss
        values = []
        for _ in range(25):
            loss = loss_of(kind, network(real), network(fake))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(float(loss.detach()))
        assert values[-1] < values[0] - 0.1
        network.eval().requires_grad_(False)


def test_steepness_is_the_sum_of_squared_derivatives():
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(4, 3, 64, 64, generator=generator)
    kernel = torch.randn(1, 3, 3, 3, generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    said, moved = (torch.nn.functional.conv2d(p, kernel) for p in (x, x + NOISE * noise))
    found = steepness(said, moved)
    torch.testing.assert_close(found, kernel.square().sum(), rtol=0.05, atol=0)


def test_no_branch_is_steep_where_there_is_nothing_to_see():
    """Against noise on a flat picture, where a logarithm of a spectrum would be steepest."""
    generator = torch.Generator().manual_seed(3)
    flat = torch.full((4, 3, 64, 64), 0.5)
    noise = torch.randn(flat.shape, generator=generator)
    found = {}
    for branch in BRANCHES:
        network = small((branch,)).eval()
        with torch.no_grad():
            found[branch] = float(steepness(network(flat), network(flat + NOISE * noise)))
    assert max(found.values()) < 10 * found["spatial"], found


@pytest.mark.parametrize("width", [28, 33, 56])
def test_any_width_has_heads_that_divide_it(width):
    network = MUNet(width, (1, 2, 2))
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)
