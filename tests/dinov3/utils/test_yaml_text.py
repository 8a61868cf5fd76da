"""Settings files that are too deep, too large, or that call functions are rejected at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_text import calls_function, read_yaml_text, require_plain_yaml


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:SECRET}",
        "before ${oc.env:SECRET,default} after",
        "${a.${oc.env:NAME}}",
        "${${a}:SECRET}",
        "${ oc.decode : x}",
        "}${oc.env:A}",
    ],
)
def test_references_that_call_functions_are_found(value: str) -> None:
    assert calls_function(value)


@pytest.mark.parametrize("value", ["${model.head}", "${a.b}: text", "C:/weights", "10:30 ${a}", "{a: b}", "$a:b"])
def test_other_strings_are_accepted(value: str) -> None:
    assert not calls_function(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: ${oc.env:HOME}\n", r"the text, line 2: '\$\{oc.env:HOME\}' calls a function"),
        ("? ${oc.env:HOME}\n: 1\n", "line 1: .* calls a function"),
        ("a: " + "[" * 5000 + "]" * 5000, "line 1: more than 30 levels"),
        ("\n".join(" " * level + "a:" for level in range(40)), "line 31: more than 30 levels"),
        ("- ${a}${a}${a}\n" * 7, "line 7: more than 20 references"),
        ("- &a 1\n" + "- [*a, *a, *a]\n" * 7, "line 8: more than 20 references"),
        ("a: [\n", "the text is not valid YAML"),
    ],
    ids=["function", "function in a key", "brackets", "indentation", "references", "aliases", "syntax"],
)
def test_what_is_not_plain_is_rejected(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        require_plain_yaml(text, "the text")
    assert len(str(caught.value)) < 500


def test_plain_settings_pass() -> None:
    require_plain_yaml("a:\n  b: [1, {c: 2}]\nd: ${a.b}\ne: 'C:/x'\n", "the text")


def test_byte_order_marks_are_read_and_other_encodings_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes("a: é\n".encode("utf-8-sig"))
    assert read_yaml_text(path) == "a: é\n"
    path.write_bytes("a: é\n".encode("latin-1"))
    with pytest.raises(UsageError, match="settings.yaml is not valid YAML: it is not UTF-8"):
        read_yaml_text(path)


def test_large_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"# " + bytes(2**20))
    with pytest.raises(UsageError, match="has 1048578 bytes; a configuration file has at most 1048576"):
        read_yaml_text(path)
