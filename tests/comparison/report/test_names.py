"""Letters, colours, and how names break."""

from __future__ import annotations

from nnunetv2.comparison.report.figures.style import wrapped
from nnunetv2.comparison.report.html_page import breakable, with_methods_marked
from nnunetv2.comparison.report.palette import ink_on, method_styles
from tests.comparison.report.planted import METHODS


def test_every_method_has_its_own_letter_colour_and_marker() -> None:
    styles = method_styles(METHODS).values()
    assert [style.code for style in styles] == list("ABCDEFGHIJ")
    assert len({style.colour for style in styles}) == len({style.marker for style in styles}) == 10
    many = list(method_styles([str(number) for number in range(60)]).values())
    assert len({(style.colour, style.marker) for style in many}) == 60
    assert [many[place].code for place in (25, 26, 27, 52)] == ["Z", "AA", "AB", "BA"]


def test_letters_can_be_read_on_their_colour() -> None:
    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for style in method_styles(METHODS).values():
        dark, light = sorted((luminance(style.colour), luminance(style.ink)))
        assert (light + 0.05) / (dark + 0.05) >= 3
    assert ink_on("#000000", 0.05) != "#FFFFFF"


def test_names_are_escaped_and_break_after_underscores() -> None:
    assert str(breakable("<i>_a__b_")) == "&lt;i&gt;_<wbr>a__<wbr>b_"
    assert str(breakable("p = 0.012, 95 % CI, 2 mm")) == "p\xa0=\xa00.012, 95\xa0%\xa0CI, 2\xa0mm"


def test_the_longest_name_is_marked_in_a_sentence() -> None:
    styles = method_styles(["U-Net", "U-Net large", "<b>"])
    text = str(with_methods_marked("U-Net large beats U-Net, <b> and nnU-Net", styles))
    assert text.count('class="named"') == 3
    assert "<b>" not in text
    assert text.endswith("and nnU-Net")
    assert ">B</span>\xa0U-Net large</span> beats <span" in text


def test_wrapped_names_lose_nothing_and_fit() -> None:
    for name in (*METHODS, "x" * 70, "a_" * 30):
        lines = wrapped(name, 22).split("\n")
        assert max(map(len, lines)) <= 22
        assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert wrapped("nnUNetTrainer__nnUNetPlans__2d", 22) == "nnUNetTrainer__\nnnUNetPlans__2d"
    assert wrapped("") == ""
