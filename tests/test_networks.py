"""Properties of the networks."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from paragonsr2 import paragonsr2_realtime
from paragonsr2.errors import OptionError, ScaleError
from paragonsr2.measure.cost import network_cost
from paragonsr2.network.attention import WindowAttention
from paragonsr2.network.blocks import join_narrow_halves
from paragonsr2.network.generator import ParagonSR2, build
from paragonsr2.network.layers import CollapsibleConv, DilatedDepthwise, WideContext
from paragonsr2.variants import SCALES, VARIANTS

ALL = [(variant, scale) for variant in VARIANTS for scale in SCALES]


@pytest.mark.parametrize(("variant", "scale"), ALL)
def test_untrained_output_is_the_base(variant, scale):
    network = build(variant, scale, upsampler_alpha=0.4).eval()
    x = torch.rand(1, 3, 19, 23)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network.base(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_base_is_not_rounded_in_bfloat16(make_small, variant):
    network = make_small(variant, 4)
    x = torch.rand(1, 3, 19, 23)
    with torch.no_grad():
        expected = network.paths(x).base
        with torch.autocast("cpu", torch.bfloat16):
            paths = network.paths(x)
            total = network.join(paths)
    assert paths.detail.dtype == torch.bfloat16
    assert total.dtype == torch.float32
    assert torch.equal(paths.base, expected)


@pytest.mark.parametrize(("variant", "scale"), ALL)
def test_collapsed_equals_trained(make_stirred, variant, scale):
    network = make_stirred(variant, scale)
    x = torch.rand(2, 3, 21, 18)
    with torch.no_grad():
        deployed = network.collapse()
        expected = network(x)
        # Random weights leave the range of pictures; the promise is for pictures.
        tolerance = 1e-5 * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(deployed(x), expected, atol=tolerance, rtol=0)
    assert deployed.is_collapsed
    assert not network.is_collapsed


@pytest.mark.parametrize("expansion", [0, 2])
@pytest.mark.parametrize(("variant", "scale"), ALL)
def test_a_deployed_network_can_be_trained_further(make_stirred, variant, scale, expansion):
    deployed = make_stirred(variant, scale).collapse()
    torch.manual_seed(1)
    network = build(variant, scale, expansion=expansion)
    network.take(deployed)
    x = torch.rand(1, 3, 21, 18)
    with torch.no_grad():
        expected = deployed(x)
        tolerance = 1e-5 * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(network(x), expected, atol=tolerance, rtol=0)
    (network(x) - torch.rand_like(expected)).abs().mean().backward()
    for conv in network.modules():
        if isinstance(conv, CollapsibleConv):
            # Hidden channels that carry nothing yet must be able to begin.
            unused = conv.project.grad[:, conv.project.shape[0] :]
            assert not unused.numel() or unused.abs().max() > 0


@pytest.mark.parametrize(("inputs", "outputs", "expansion"), [(64, 32, 1), (16, 64, 1), (8, 8, 4)])
def test_the_hidden_width_does_not_limit_a_kernel(inputs, outputs, expansion):
    conv = CollapsibleConv(inputs, outputs, expansion=expansion)
    wanted = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
    conv.take(wanted)
    torch.testing.assert_close(conv.collapsed().weight, wanted.weight)
    torch.testing.assert_close(conv.collapsed().bias, wanted.bias)


def test_parameters_keep_the_order_that_states_of_runs_rely_on():
    names = [name for name, _ in CollapsibleConv(8, 8, expansion=2).named_parameters()]
    assert names == ["expand", "mix", "project", "bias"]


def test_joined_halves_are_the_same_network(make_stirred):
    deployed = make_stirred("photo").collapse()
    joined = copy.deepcopy(deployed)
    join_narrow_halves(joined)
    assert {type(m) for m in joined.modules()} - {type(m) for m in deployed.modules()}
    x = torch.rand(2, 3, 21, 18)
    with torch.no_grad():
        torch.testing.assert_close(joined(x), deployed(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_deployed_network_keeps_the_dtype(make_small, variant, dtype):
    network = make_small(variant).to(dtype)
    deployed = network.collapse()
    assert {parameter.dtype for parameter in deployed.parameters()} == {dtype}
    x = torch.rand(1, 3, 21, 18, dtype=dtype)
    with torch.no_grad():
        # Channel gates pool in float32 at least.
        tolerance = 1e-5 if dtype == torch.float64 else 0.1
        torch.testing.assert_close(deployed(x), network(x), atol=tolerance, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 2), (16, 16), (15, 33)])
def test_any_size_works(make_small, variant, size):
    with torch.no_grad():
        out = make_small(variant)(torch.rand(1, 3, *size))
    assert out.shape == (1, 3, 2 * size[0], 2 * size[1])
    assert out.isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_cost_stays_in_budget(variant):
    assert network_cost(build(variant, 2)).kmacs_per_pixel <= VARIANTS[variant].budget


@pytest.mark.parametrize("variant", ["realtime", "stream"])
def test_reach_is_the_receptive_field(make_stirred, variant):
    network = make_stirred(variant).double()
    reach = network.reach
    side = 2 * reach + 9
    x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    centre = side // 2
    network(x)[0, :, 2 * centre : 2 * centre + 2, 2 * centre : 2 * centre + 2].sum().backward()
    seen = (x.grad[0].abs().sum(0) > 0).nonzero()
    assert (seen - centre).abs().max() == reach


def test_stream_sees_past_a_compression_block(make_stirred):
    assert 2 * make_stirred("stream").reach + 1 >= 64


def test_gated_blocks_add_a_bounded_amount(make_stirred):
    x = torch.rand(1, 32, 24, 24)
    with torch.no_grad():
        for group in make_stirred("stream").groups:
            for block in group.blocks:
                added, more = ((block(f * x) - f * x).abs().max() for f in (1e3, 1e5))
                assert more == pytest.approx(float(added), rel=0.1)


def test_photo_reach_bounds_the_receptive_field(make_small):
    network = make_small("photo", blocks=1).double()
    side = 2 * network.reach + 33
    x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    centre = side // 2
    network(x)[0, :, 2 * centre, 2 * centre].sum().backward()
    seen = (x.grad[0].abs().sum(0) > 0).nonzero()
    assert (seen - centre).abs().max() <= network.reach


def attentions(network):
    return [module for module in network.modules() if isinstance(module, WindowAttention)]


@pytest.mark.parametrize("variant", ["photo", "pro"])
def test_opposite_borders_do_not_attend_to_each_other(make_small, variant):
    network = make_small(variant)
    attention = attentions(network)[1]
    assert attention.shift == attention.window // 2
    x = torch.rand(1, network.conv_in.out_channels, 32, 48, requires_grad=True)
    attention(x)[0, :, :, 0].sum().backward()
    assert x.grad[..., attention.window :].abs().max() == 0
    assert x.grad[..., 1].abs().max() > 0


def test_padding_does_not_leak_into_attention(make_small):
    """A window that is half padding attends as if it were small."""
    attention = attentions(make_small("photo"))[0]
    with torch.no_grad():
        qkv = attention.qkv(torch.rand(1, 64, 7, 7) * 3)
        q, k, v = qkv.reshape(3, 32, 49).transpose(1, 2)
        alone = ((q @ k.T / 32**0.5).softmax(-1) @ v).T.reshape(1, 32, 7, 7)
        torch.testing.assert_close(attention.attend(qkv), alone, atol=1e-5, rtol=0)


def test_a_window_goes_with_the_weights(make_small):
    row = replace(VARIANTS["photo"], groups=1, blocks=2, attending=(0,))
    state = make_small("photo", groups=1).state_dict()
    with pytest.raises(OptionError, match="window_size 16, but the network has 8"):
        ParagonSR2(row, 2, window_size=8).load_state_dict(state)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("content", ["black", "white", "noise", "smooth"])
def test_half_precision_is_finite_and_close(make_small, variant, content):
    network = make_small(variant)
    ramp = torch.linspace(0, 1, 40).expand(1, 3, 40, 40)
    x = {
        "black": torch.zeros(1, 3, 40, 40),
        "white": torch.ones(1, 3, 40, 40),
        "noise": torch.rand(1, 3, 40, 40),
        "smooth": ramp * ramp.transpose(2, 3),
    }[content]
    with torch.no_grad():
        full = network(x)
        half = network.half()(x.half()).float()
    assert half.isfinite().all()
    mse = (full - half).square().mean()
    assert 10 * torch.log10(1 / mse) >= 50


def test_gate_starts_neutral_and_stays_open(make_stirred):
    network = build("stream", 2)
    x = torch.rand(1, 3, 24, 24)
    assert torch.all(network.paths(x).gate == 1.0)
    gate = make_stirred("stream").paths(x).gate
    assert gate.min() >= 0.5
    assert gate.max() <= 1.5


def test_checkpointing_changes_no_gradient(make_small):
    network = make_small("stream").train()
    x = torch.rand(1, 3, 20, 20)
    gradients = []
    for on in (False, True):
        network.set_checkpointing(on)
        network.zero_grad()
        network(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_deployed_realtime_is_plain_convolutions(make_stirred):
    deployed = make_stirred("realtime").collapse()
    for group in deployed.groups:
        for block in group.blocks:
            assert isinstance(block.conv, torch.nn.Conv2d)
            assert all(type(m) is DilatedDepthwise for m in block.context)


def test_contexts_start_as_nothing_and_deploy_as_one_convolution(make_stirred):
    x = torch.rand(1, 16, 12, 9)
    for network in (build("realtime", 2), make_stirred("realtime")):
        contexts = [m for m in network.modules() if isinstance(m, WideContext)]
        assert contexts
        with torch.no_grad():
            for context in contexts:
                deployed = context.collapsed()
                assert type(deployed) is DilatedDepthwise
                torch.testing.assert_close(deployed(x), context(x), atol=1e-6, rtol=0)
                assert torch.equal(context(x), x) == (not context.weight.any())
    assert not any(m.weight.any() for m in build("realtime", 2).modules() if type(m) is WideContext)


def test_wrong_options_are_refused():
    with pytest.raises(OptionError, match="unknown option sclae"):
        paragonsr2_realtime(2, sclae=2)
    with pytest.raises(OptionError, match="no attention"):
        paragonsr2_realtime(2, window_size=16)
    with pytest.raises(OptionError, match="unknown variant"):
        build("huge", 2)
    with pytest.raises(OptionError, match="upsampler_alpha"):
        paragonsr2_realtime(2, upsampler_alpha=1.5)
    with pytest.raises(ScaleError):
        paragonsr2_realtime(5)


def test_deployed_widths_are_multiples_of_eight(make_stirred):
    for variant in VARIANTS:
        deployed = make_stirred(variant).collapse()
        ends = {3, 12, 1}
        for module in deployed.modules():
            if isinstance(module, torch.nn.Conv2d):
                for width in (module.in_channels, module.out_channels):
                    assert width % 8 == 0 or width in ends


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (12, 8)])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("kernel", [(7, 7), (1, 9), (9, 1)])
def test_a_dilated_depthwise_convolution_is_what_its_plain_form_computes(size, dilation, kernel):
    torch.manual_seed(0)
    conv = DilatedDepthwise(4, kernel, dilation).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    results = []
    for forward in (conv, super(DilatedDepthwise, conv).forward):
        inputs = x.clone().requires_grad_()
        y = forward(inputs)
        results.append([y, *torch.autograd.grad(y.square().sum(), [inputs, conv.weight])])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-9, rtol=1e-9)
