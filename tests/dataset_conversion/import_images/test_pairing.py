"""Which mask belongs to which picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2.dataset_conversion.import_images.pairing import pair, without_suffixes
from nnunetv2.errors import DataError, UsageError


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def names_and_rule(images: list[Path], masks: list[Path], **options: object) -> tuple[dict[str, str], str]:
    found = pair(images, masks, **options)
    return {found.names[image]: mask.name for image, mask in found.masks.items()}, found.rule[:6]


def test_equal_names_come_first() -> None:
    found = names_and_rule(paths("a_1.png", "b_1.JPG"), paths("a_1.gif", "b_1.tif", "c_1.png"))
    assert found == ({"a_1": "a_1.gif", "b_1": "b_1.tif"}, "rule 1")


def test_endings_of_names_are_taken_off() -> None:
    drive = paths("21_training.tif", "22_training.tif")
    assert names_and_rule(drive, paths("21_manual1.gif", "22_manual1.gif")) == (
        {"21": "21_manual1.gif", "22": "22_manual1.gif"},
        "rule 2",
    )
    assert names_and_rule(drive, paths("21_training_mask.gif", "22_training_mask.gif"))[1] == "rule 2"
    assert without_suffixes("p_GT_1stHO") == "p"
    assert without_suffixes("_mask") == "_mask"


def test_the_only_number_of_each_name_is_last() -> None:
    found = names_and_rule(paths("img07.png", "img12.png"), paths("truth-7.png", "truth-12.png"))
    assert found == ({"07": "truth-7.png", "12": "truth-12.png"}, "rule 3")
    with pytest.raises(DataError, match="2 pictures of 2 without mask"):
        pair(paths("img7_1.png", "img8_1.png"), paths("truth-7.png", "truth-8.png"))


def test_a_rule_has_to_pair_every_picture() -> None:
    """`a` pairs by its whole name, `b_training` only without its ending: so rule 2 is for both."""
    found = names_and_rule(paths("a.png", "b_training.png"), paths("a.png", "b_mask.png"))
    assert found == ({"a": "a.png", "b": "b_mask.png"}, "rule 2")


def test_two_masks_of_one_picture_are_refused_and_chosen_by_a_pattern() -> None:
    images, masks = paths("x_1.jpg"), paths("x_1_1stHO.png", "x_1_2ndHO.png")
    with pytest.raises(DataError, match=r"x_1.jpg has 2 masks: x_1_1stHO.png, x_1_2ndHO.png .*--pair.*second reader"):
        pair(images, masks)
    found = names_and_rule(images, masks, pattern=r"^(x_\d+)(?:_1stHO)?$")
    assert found[0] == {"x_1": "x_1_1stHO.png"}


def test_a_mask_in_two_formats_is_refused() -> None:
    with pytest.raises(DataError, match=r"a.png has 2 masks: a.gif, a.tif"):
        pair(paths("a.png"), paths("a.gif", "a.tif"))


def test_a_picture_without_mask_names_what_is_near() -> None:
    with pytest.raises(DataError, match=r"1 picture of 2 without mask: beta.png .* nearest names are beat.png"):
        pair(paths("alfa.png", "beta.png"), paths("alfa.png", "beat.png"))
    found = pair(paths("alfa.png", "beta.png"), paths("alfa.png", "beat.png"), may_lack_masks=True)
    assert (found.unpaired, found.unused) == ((Path("beta.png"),), (Path("beat.png"),))


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "no regular expression"), ("a", "needs a group"), ("(z)", "match")]
)
def test_patterns_that_cannot_pair(pattern: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pair(paths("a.png"), paths("a.png"), pattern=pattern)
