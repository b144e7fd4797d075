"""A place in spandrel, the loader that chaiNNer and other tools open models with.

::

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

# spandrel hands over tensors without the file's name.
_FILE = Path("FILE")


class ParagonSR2Arch(Architecture[ParagonSR2]):
    """How spandrel recognises, builds and describes the networks of this family."""

    def __init__(self) -> None:
        super().__init__(id=ARCHITECTURE, detect=_is_paragonsr2)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[ParagonSR2]:
        """Build the network of a state, in trained or deployed form, as the state is.

        Args:
            state_dict: bare tensors by name; ``upsampler_alpha`` is 0 where it lacks.

        Returns:
            The network, which takes RGB ``(B, 3, H, W)`` in 0..1, any H and W from 1.

        Raises:
            WeightsError: a tensor is missing, left over, of another shape or not finite.
        """
        about = describe_state(state_dict)
        network = load_network(state_dict, about, _FILE).eval()
        # Where the whole image matters, a tile is not what the image would be.
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
    """Let every ``spandrel.ModelLoader`` open ParagonSR2 files; calling it again is harmless."""
    MAIN_REGISTRY.add(ArchSupport.from_architecture(ParagonSR2Arch()), ignore_duplicates=True)


def _is_paragonsr2(state_dict: StateDict) -> bool:
    try:
        describe_state(state_dict)
    except WeightsError:
        return False
    return True
