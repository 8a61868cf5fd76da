"""Names that files register: found by parsing, loaded when asked for; settings are read without the rest of a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.utilities import extensions

HEAD = '''
from dataclasses import dataclass
{imports}

@register_head({name})
class Mine:
    """A first line.

    And more.
    """

    @dataclass
    class Config:
        width: int = {width}
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, named by the variable; what its files change in the interpreter is undone."""
    found = tmp_path / "mine"
    found.mkdir()
    monkeypatch.setenv("nnUNet_extensions", str(found))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        if str(tmp_path) in f"{name} {getattr(sys.modules[name], '__file__', '')}":
            del sys.modules[name]


def write(path: Path, *, name: str = '"mine"', width: str = "3", imports: str = "", more: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD.format(name=name, width=width, imports=imports) + more)


def test_names_of_users_come_behind_those_of_the_package(folder):
    own = extensions.names("head")
    write(folder / "deep" / "a.py", name='"a_first_one"')
    assert extensions.names("head") == (*own, "a_first_one")
    found = extensions.find("head", "a_first_one")
    assert (found.summary, found.is_external, found.definition) == ("A first line.", True, "Mine")
    assert "a_first_one" not in extensions.names("loss")


def test_a_file_is_not_run_until_its_class_is_asked_for(folder):
    write(folder / "a.py", more="raise RuntimeError('was run')\n")
    assert extensions.find("head", "mine").config()().width == 3
    with pytest.raises(NameError):  # the decorator comes first, and nobody has imported it
        extensions.find("head", "mine").load()


def test_a_file_may_import_its_neighbours_also_for_its_settings(folder):
    (folder / "neighbour_of_mine.py").write_text("WIDTH = 7\n")
    write(folder / "deep" / "a.py", imports="from neighbour_of_mine import WIDTH", width="WIDTH")
    assert extensions.find("head", "mine").config()().width == 7


def test_settings_come_without_what_they_do_not_need(folder):
    write(folder / "a.py", imports="import there_is_no_such_module\nWIDTH = 2 * 4", width="WIDTH")
    assert extensions.find("head", "mine").config()().width == 8


def test_fields_that_are_no_settings_are_reported(folder):
    write(folder / "a.py")
    (folder / "a.py").write_text((folder / "a.py").read_text().replace("@dataclass\n", "\n"))
    with pytest.raises(UsageError, match="a.py: put @dataclass on Mine.Config, whose fields are no settings yet"):
        extensions.find("head", "mine").config()


def test_a_name_that_two_files_register_is_rejected_with_both(folder):
    write(folder / "a.py")
    write(folder / "b.py")
    with pytest.raises(UsageError, match=r"head 'mine' is registered by .*a.py and by .*b.py"):
        extensions.names("head")


def test_a_name_of_the_package_is_taken(folder):
    write(folder / "a.py", name='"upernet"')
    with pytest.raises(UsageError, match=r"'upernet' is registered by .*heads/upernet.py and by .*a.py"):
        extensions.find("head", "upernet")


def test_one_folder_named_twice_is_no_clash(folder, monkeypatch):
    write(folder / "a.py")
    monkeypatch.setenv("nnUNet_extensions", os.pathsep.join((str(folder), f"{folder}/.")))
    assert extensions.find("head", "mine").path.name == "a.py"


def test_names_that_are_no_literals_are_passed_over(folder):
    write(folder / "a.py", name="NAME", imports='NAME = "mine"')
    assert "mine" not in extensions.names("head")


def test_a_file_that_is_no_python_is_skipped_with_a_warning(folder, caplog):
    (folder / "old.py").write_text("print 'register_head'\n")
    write(folder / "a.py")
    assert "mine" in extensions.names("head")
    assert "old.py, which is not valid Python" in caplog.text


def test_an_unknown_name_is_answered_with_those_there_are(folder, monkeypatch):
    with pytest.raises(UsageError, match="There is no head 'segformr'; registered are .*; did you mean segformer?"):
        extensions.find("head", "segformr")
    monkeypatch.delenv("nnUNet_extensions")
    with pytest.raises(UsageError, match=r"nnUNet_extensions names no folder of your own"):
        extensions.find("head", "mine")


def test_a_folder_that_does_not_exist_is_reported(folder, monkeypatch):
    monkeypatch.setenv("nnUNet_extensions", str(folder / "gone"))
    with pytest.raises(UsageError, match="nnUNet_extensions names .*gone, which is not a folder"):
        extensions.names("head")
