"""Support for spandrel, the library with which chaiNNer and other tools load models.

After :func:`install`, spandrel recognises the checkpoints of this family::

    import spandrel
    from paragonsr2.spandrel import install

    install()
    model = spandrel.ModelLoader().load_from_file("paragonsr2_photo_x2.safetensors")
"""

from __future__ import annotations

from pathlib import Path

from paragonsr2.errors import MissingExtraError, WeightsError

try:
    from spandrel import (
        MAIN_REGISTRY,
        Architecture,
        ArchSupport,
        ImageModelDescriptor,
        ModelTiling,
        SizeRequirements,
        StateDict,
    )

    from paragonsr2.network.generator import ParagonSR2
    from paragonsr2.weights.store import describe_state, load_network
except ModuleNotFoundError as error:
    raise MissingExtraError(f"opening models in spandrel ({error})", "spandrel") from error

ARCHITECTURE = "ParagonSR2"

# spandrel passes tensors without the name of their file; messages need one.
_FILE = Path("FILE")


class ParagonSR2Arch(Architecture[ParagonSR2]):
    """Recognises, builds and describes the networks of this family for spandrel."""

    def __init__(self) -> None:
        super().__init__(id=ARCHITECTURE, detect=_is_paragonsr2)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[ParagonSR2]:
        """Build the network of a state dict, in trained or deployed form.

        Args:
            state_dict: tensors by name. Without ``upsampler_alpha`` it is taken as 0.

        Returns:
            The described network; it takes RGB ``(B, 3, H, W)`` in 0..1, any H and W from 1.

        Raises:
            WeightsError: a tensor is missing, unexpected, of the wrong shape or not finite.
        """
        about = describe_state(state_dict)
        network = load_network(state_dict, about, _FILE).eval()
        # A network that pools over the whole image gives other results for tiles.
        tiling = ModelTiling.SUPPORTED if network.reach is not None else ModelTiling.DISCOURAGED
        return ImageModelDescriptor(
            network,
            network.state_dict(),
            architecture=self,
            purpose="SR",
            tags=[about.variant, f"{network.conv_in.out_channels}ch"],
            supports_half=True,
            supports_bfloat16=True,
            scale=about.scale,
            input_channels=3,
            output_channels=3,
            size_requirements=SizeRequirements(minimum=1, multiple_of=1),
            tiling=tiling,
        )


def install() -> None:
    """Register this family with spandrel; calling it again has no effect."""
    MAIN_REGISTRY.add(ArchSupport.from_architecture(ParagonSR2Arch()), ignore_duplicates=True)


def _is_paragonsr2(state_dict: StateDict) -> bool:
    try:
        describe_state(state_dict)
    except WeightsError:
        return False
    return True
