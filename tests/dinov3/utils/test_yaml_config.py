"""Typed settings from defaults, a YAML file and words of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import (
    config_as_yaml,
    dotted_items,
    load_config,
    plain_config,
    require_choice,
    require_range,
    save_config,
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Head:
    width: int = 64
    dropout: float = 0.1
    sizes: list[int] | None = None

    def __post_init__(self) -> None:
        require_range("head.dropout", self.dropout, 0, 1)


@dataclass
class Settings:
    name: str = "plain"
    verbose: bool = False
    head: Head = field(default_factory=Head)
    second: Head | None = None
    colour: Colour = Colour.RED
    options: dict[str, Any] = field(default_factory=lambda: {"speed": 1})
    area: int | list[int] | None = None


def write(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_stand_below_the_file_and_the_file_below_the_words(tmp_path):
    path = write(tmp_path, "head:\n  width: 32\n  dropout: 1e-2\n")
    config = load_config(Settings, path, ["head.width=16", "head.sizes=[1,2]", "verbose=true"])
    assert config == Settings("plain", True, Head(16, 0.01, [1, 2]))


@pytest.mark.parametrize("text", ["", "# nothing\n", "head:\n#  width: 3\n", "second:\n#  width: 3\n"])
def test_an_empty_file_or_section_keeps_the_defaults(tmp_path, text):
    assert load_config(Settings, write(tmp_path, text)) == Settings()


def test_saved_settings_come_back_equal(tmp_path):
    config = Settings(
        "a: b", True, Head(3, 1e-5, [4]), Head(5), Colour.BLUE, {"mode": "1e3", "deep": {"x": None}}, [1, 2]
    )
    save_config(config, tmp_path / "saved.yaml")
    # What is given for a dictionary is merged into its default.
    config.options["speed"] = 1
    assert load_config(Settings, tmp_path / "saved.yaml") == config


@pytest.mark.parametrize("area", [7, [7, 8], None])
def test_a_field_may_have_one_of_several_types(tmp_path, area):
    config = load_config(Settings, None, [f"area={'null' if area is None else str(area).replace(' ', '')}"])
    assert config.area == area
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Settings, tmp_path / "saved.yaml") == config


def test_an_optional_section_comes_to_be_with_its_first_key(tmp_path):
    assert load_config(Settings, write(tmp_path, "second: {width: 3}\n")).second == Head(3)
    assert load_config(Settings, None, ["second.sizes=[3]"]).second == Head(sizes=[3])
    assert load_config(Settings, write(tmp_path, "second: {width: 3}\n"), ["second.dropout=0"]).second == Head(3, 0.0)
    assert load_config(Settings, write(tmp_path, "second: {width: 3}\n"), ["second=null"]).second is None


def test_keys_of_a_dictionary_are_free(tmp_path):
    path = write(tmp_path, "options: {warmup: 3, nested: {deep: [1]}}\n")
    config = load_config(Settings, path, ["options.warmup=4", "options.nested.more=x"])
    assert config.options == {"speed": 1, "warmup": 4, "nested": {"deep": [1], "more": "x"}}


def test_an_empty_dictionary_empties(tmp_path):
    path = write(tmp_path, "options: {warmup: 3}\nhead: {}\n")
    config = load_config(Settings, path, ["options={}", "options.last=1"])
    assert config.options == {"last": 1}
    assert config.head == Head()


def test_an_enumeration_is_given_by_name_or_value():
    assert load_config(Settings, None, ["colour=BLUE"]).colour is Colour.BLUE
    assert load_config(Settings, None, ["colour=blue"]).colour is Colour.BLUE


def test_a_value_may_refer_to_another_setting(tmp_path):
    config = load_config(Settings, write(tmp_path, "head: {width: 5}\narea: ${head.width}\n"), ["name=run_${area}"])
    assert (config.area, config.name) == (5, "run_5")
    assert load_config(Settings, None, ["area=${head.width}"]).area == 64


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("area=${head.widht}", "area refers to a setting that cannot be read .*head.widht"),
        ("area=${name}", "area=plain is not accepted; give a whole number"),
        ("area=${", "The value in 'area=.*' is not valid YAML"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(word, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_config(Settings, None, [word])
    assert "\n" not in str(caught.value)


def test_plain_values_are_those_of_the_file():
    config = Settings(second=Head(sizes=[1]), colour=Colour.BLUE)
    plain = plain_config(config)
    assert plain["colour"] == "BLUE"
    assert plain["second"] == {"width": 64, "dropout": 0.1, "sizes": [1]}
    assert dotted_items(config)["second.sizes"] == [1]
    assert dotted_items(config)["options.speed"] == 1
    assert "colour: BLUE\n" in config_as_yaml(config)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="absent.yaml does not exist"):
        load_config(Settings, tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nhead:\n  widht: 3\n", "line 3: there is no setting 'head.widht'; did you mean head.width"),
        ("verbos: true\n", "line 1: there is no setting 'verbos'; did you mean verbose"),
        ("\ndropout: 0.5\n", "line 2: there is no setting 'dropout'; did you mean head.dropout"),
        ("head: 3\n", "line 1: head must hold `key: value` pairs"),
        ("- name\n", "line 1: the file must hold `key: value` pairs"),
        ("head: [\n", "is not valid YAML"),
        ("head: [1]\n", "line 1: head must hold `key: value` pairs"),
        ("3: x\n", "line 1: there is no setting '3'"),
        ("name: a\nname: b\n", "is not valid YAML: .*duplicate key name"),
        ("name: !!python/object:os.system {}\n", "is not valid YAML: could not determine a constructor"),
        ("head:\n  width: wide\n", "settings.yaml, line 2: head.width=wide is not accepted; give a whole number"),
        ("second:\n  width: 1.5\n", "line 2: second.width=1.5 is not accepted; give a whole number"),
        ("verbose: perhaps\n", "line 1: verbose=perhaps is not accepted; give true or false"),
        (
            "head:\n  sizes: 3\n",
            r"line 2: head.sizes=3 is not accepted; give a list of whole numbers such as \[1,2\] or",
        ),
        ("colour: GREEN\n", "line 1: colour=GREEN is not accepted; give one of RED, BLUE"),
        ("options: 3\n", "line 1: options=3 is not accepted; give `key: value` pairs"),
        ("name: [a]\n", r"line 1: name=\['a'\] is not accepted; give a word"),
        ("area: wide\n", "line 1: area=wide is not accepted; give a whole number or a list of whole numbers such as"),
        ("head:\n  dropout: 2\n", "head.dropout=2.0 is out of range; it must be between 0 and 1"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_config(Settings, write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("head.widht=3", "There is no setting 'head.widht'; did you mean head.width"),
        ("width=3", "There is no setting 'width'; did you mean head.width"),
        ("head.width", "'head.width' is not a setting; write key=value"),
        ("=3", "'=3' is not a setting"),
        ("head={width: 3}", "head is a section; set one of head.width, head.dropout, head.sizes"),
        ("head=null", "head is a section"),
        ("second=3", "second is a section; set one of second.width"),
        ("head.width.more=3", "There is no setting 'head.width.more'; did you mean head.width"),
        ("--head-width", "'--head-width' is not a setting; write it as head_width=VALUE"),
        ("head.width=wide", "^head.width=wide is not accepted; give a whole number"),
        ("head.sizes=64", r"^head.sizes=64 is not accepted; give a list of whole numbers such as \[1,2\] or null"),
        (f"name=[{'a' * 99}]", r"^name=\[a{59}\.\.\. is not accepted; give a word"),
        ("head.width=[1", r"The value in 'head.width=\[1' is not valid YAML"),
    ],
)
def test_a_wrong_word_is_refused(word, message):
    with pytest.raises(UsageError, match=message):
        load_config(Settings, None, [word])


def test_choices_and_ranges_say_what_they_accept():
    with pytest.raises(UsageError, match="colour='gren' is not known; choose one of red, green; did you mean green"):
        require_choice("colour", "gren", ("red", "green"))
    with pytest.raises(UsageError, match="size=0 is out of range; it must be at least 1"):
        require_range("size", 0, 1)
    require_choice("colour", "red", ("red",))
    require_range("size", 1, 1, 1)
