"""Selection of the vision transformer blocks that a segmentation head reads."""

from __future__ import annotations

from collections.abc import Sequence

from dinov3.eval.segmentation.settings.head import BackboneLayersSet

# The released segmentation models read the fifth block of 24, not the sixth as equal intervals would.
_EVEN_INTERVALS_OF_24 = (4, 11, 17, 23)


def backbone_out_indices(num_blocks: int, layers: BackboneLayersSet | str | Sequence[int]) -> list[int]:
    """Resolves a selection to block indices.

    Args:
        num_blocks: Depth of the backbone.
        layers: A `BackboneLayersSet`, its name, or 0-based block indices.

    Returns:
        0-based indices, ascending.

    Raises:
        ValueError: If the selection is unknown, the backbone has fewer than four blocks, or indices are not ascending
            or do not exist.
    """
    if isinstance(layers, str):
        if layers not in BackboneLayersSet.__members__:
            raise ValueError(
                f"The backbone layers {layers!r} are unknown; choose one of {', '.join(BackboneLayersSet.__members__)} "
                f"or list block indices."
            )
        layers = BackboneLayersSet[layers]
    if isinstance(layers, BackboneLayersSet):
        return _indices_of_choice(num_blocks, layers)
    indices = [int(index) for index in layers]
    if not indices or indices != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= num_blocks:
        raise ValueError(
            f"The backbone layers {indices} were given; list ascending block indices from 0 to {num_blocks - 1}."
        )
    return indices


def _indices_of_choice(num_blocks: int, choice: BackboneLayersSet) -> list[int]:
    if choice is BackboneLayersSet.LAST:
        return [num_blocks - 1]
    if num_blocks < 4:
        raise ValueError(f"{choice.value} was asked of a backbone with {num_blocks} blocks; it needs at least 4.")
    if choice is BackboneLayersSet.FOUR_LAST:
        return list(range(num_blocks - 4, num_blocks))
    if num_blocks == 24:
        return list(_EVEN_INTERVALS_OF_24)
    return [num_blocks // 4 * quarter - 1 for quarter in (1, 2, 3, 4)]
