"""Typed settings from defaults, a YAML file and words of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import load_config, require_choice, require_range, save_config


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


def write(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_stand_below_the_file_and_the_file_below_the_words(tmp_path):
    path = write(tmp_path, "head:\n  width: 32\n  dropout: 1e-2\n")
    config = load_config(Settings, path, ["head.width=16", "head.sizes=[1,2]", "verbose=true"])
    assert config == Settings("plain", True, Head(16, 0.01, [1, 2]))


@pytest.mark.parametrize("text", ["", "# nothing\n", "head:\n#  width: 3\n"])
def test_an_empty_file_or_section_keeps_the_defaults(tmp_path, text):
    assert load_config(Settings, write(tmp_path, text)) == Settings()


def test_saved_settings_come_back_equal(tmp_path):
    config = Settings("a: b", True, Head(3, 0.0, [4]))
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Settings, tmp_path / "saved.yaml") == config


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
        (
            "head:\n  width: wide\n",
            "head.width in .*settings.yaml: Value 'wide' of type 'str' could not be converted to Int",
        ),
        ("verbose: perhaps\n", "verbose in .*settings.yaml: Value 'perhaps' is not a valid bool"),
        ("head:\n  sizes: 3\n", "head.sizes in .*settings.yaml"),
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
        ("head.width=wide", r"head.width in the command line \(head.width=wide\): Value 'wide'"),
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
