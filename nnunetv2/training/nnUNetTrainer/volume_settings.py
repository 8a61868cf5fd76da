"""Settings of vision transformers that take volumes: checks, and what plans keep of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.input_choices import FUSIONS, SLICE_INPUTS

_AUTO = "auto"
_IMAGE = 2  # axes of a patch
CONTEXT_SLICES = (1, 3, 5, 7)


@dataclass(frozen=True)
class VolumeSettings:
    """What slices see of each other; each setting is described in `ViTModelConfig`.

    Raises:
        UsageError: a name is unknown, or a number below 1.
    """

    slice_input: str = _AUTO
    fusion: str = _AUTO
    fusion_dim: int = 64
    fusion_layers: int = 2
    slices_per_chunk: int | None = None
    context_slices: int = 1

    def __post_init__(self) -> None:
        require_choice("model.slice_input", self.slice_input, (_AUTO, *SLICE_INPUTS))
        require_choice("model.fusion", self.fusion, (_AUTO, *FUSIONS))
        for name in ("fusion_dim", "fusion_layers", "slices_per_chunk"):
            if getattr(self, name) is not None:
                require_range(f"model.{name}", getattr(self, name), 1)
        if self.context_slices not in CONTEXT_SLICES:
            raise UsageError(
                f"model.context_slices={self.context_slices} must be one of {', '.join(map(str, CONTEXT_SLICES))}: the "
                f"slice to segment and as many on each side"
            )

    def arguments(self, *, num_axes: int, num_channels: int) -> dict[str, Any]:
        """Returns the arguments from which plans rebuild the network, without `auto` and defaults of 2-D patches.

        Args:
            num_axes: axes of the patch.
            num_channels: C of the images.

        Raises:
            UsageError: a setting for volumes with 2-D patches, or neighbours of more than one channel.
        """
        if num_axes == _IMAGE:
            self._require_defaults()
            return {"context_slices": self.context_slices} if self.context_slices > 1 else {}
        if self.context_slices > 1:
            raise UsageError(
                f"model.context_slices={self.context_slices} is for 2-D patches, and this configuration has 3-D ones; "
                f"leave it out: model.slice_input and model.fusion show the slices to each other"
            )
        slice_input = self.slice_input
        if slice_input == _AUTO:
            slice_input = "neighbours" if num_channels == 1 else "single"
        if slice_input == "neighbours" and num_channels != 1:
            raise UsageError(
                f"model.slice_input=neighbours is for images of one channel, and these have {num_channels}; leave it "
                f"out: model.fusion mixes the slices"
            )
        resolved = {"slice_input": slice_input, "fusion": "conv" if self.fusion == _AUTO else self.fusion}
        arguments = asdict(self) | resolved
        del arguments["context_slices"]
        return {name: value for name, value in arguments.items() if value is not None}

    def _require_defaults(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        del given["context_slices"]
        words = [f"model.{name}={value}" for name, value in given.items() if value != getattr(VolumeSettings, name)]
        if words:
            raise UsageError(
                f"{' '.join(words)}: for 3-D patches, and this configuration has 2-D ones; leave it out, train another "
                f"configuration, or show a slice its neighbours by model.context_slices=3"
            )
