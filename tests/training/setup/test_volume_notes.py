"""What the log says of slices before a training on volumes."""

from __future__ import annotations

from nnunetv2.training.setup.volume_notes import volume_notes


def test_the_axis_of_the_slices_is_that_of_the_stored_arrays() -> None:
    (note,) = volume_notes([32, 256, 192], [5.0, 0.7, 0.8], [2, 0, 1], token=16, scale=1)
    assert note == "Slices lie along axis 2 of the arrays (order z, y, x) and are 5 mm apart; a patch has 32"


def test_small_slices_are_named_with_the_scale_that_gives_eight_tokens() -> None:
    _, note = volume_notes([40, 56, 40], [1.0, 1.0, 1.0], [0, 1, 2], token=14, scale=1)
    assert note.startswith("A slice of 56 x 40 pixels is 4 x 3 tokens of the transformer, which are few")
    assert "set model.input_scale=3," in note  # 40 * 3 / 14 = 8.6
    assert len(volume_notes([40, 56, 40], [1.0, 1.0, 1.0], [0, 1, 2], token=14, scale=2)) == 1  # chosen by the user
    assert len(volume_notes([8, 128, 128], [1.0, 1.0, 1.0], [0, 1, 2], token=16, scale=1)) == 1
