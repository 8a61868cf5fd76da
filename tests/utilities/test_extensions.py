"""Names that files register: found by parsing, loaded when asked for; settings are read without the rest of a file."""

from __future__ import annotations

import os
import re
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
    with pytest.raises(UsageError, match="a.py, line 5: NameError: name 'register_head' is not defined; correct this"):
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
    write(folder / "c.py", name='"another"')
    with pytest.raises(UsageError, match=r"head 'mine' is registered by Mine of .*a.py and by Mine of .*b.py; give"):
        extensions.find("head", "mine")
    # Commands that need another one go on, and those that list all name both files.
    assert extensions.find("head", "another").path.name == "c.py"
    assert re.match(r"unusable: registered by .*a.py and by .*b.py$", extensions.summaries("head")["mine"])
    assert [each.path.name for each in extensions.of_users("head")] == ["a.py", "b.py", "c.py"]


def test_one_file_may_not_register_a_name_twice(folder):
    write(folder / "a.py", more="\n\n@register_head('mine')\nclass Second:\n    pass\n")
    with pytest.raises(UsageError, match=r"is registered by Mine of .*a.py and by Second of .*a.py"):
        extensions.find("head", "mine")


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


UNREGISTERED = """
from nnunetv2.model import head, heads
from nnunetv2.model.heads.linear import Linear

class Base(head.DenseHead):
    pass

{decorator}
class Mine(Base):
    pass

@head.register_head("known")
class Known(Linear):
    pass

class Helper:
    pass
"""


@pytest.mark.parametrize("decorator", ["", "@head.register_head(NAME)", "@head.register_head", "@other('mine')"])
def test_a_name_that_is_not_found_hints_at_classes_without_a_registration(folder, decorator):
    (folder / "a.py").write_text(UNREGISTERED.format(decorator=decorator))
    hint = r'a.py, line 9: the class Mine is not registered; put @register_head\("mine"\) above it, with the name as a'
    with pytest.raises(UsageError, match=rf"There is no head 'mine'; registered are .*known.*; .*{hint} literal$"):
        extensions.find("head", "mine")


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("head", "QueryHead"),
        ("head", "Linear"),
        ("loss", "DenseLoss"),
        ("loss", "CrossEntropy"),
        ("metric", "Metric"),
        ("backbone", "TimmBackbone"),
        ("reader", "BaseReaderWriter"),
    ],
)
def test_a_registration_is_missed_in_classes_of_every_kind(folder, kind, base):
    (folder / "a.py").write_text(f"class Mine({base}):\n    pass\n")
    assert f"a.py, line 1: the class Mine is not registered; put @register_{kind}(" in extensions.unregistered_hint(
        kind, "mine"
    )
    (folder / "a.py").write_text(f"@register_{kind}('mine')\nclass Mine({base}):\n    pass\n")
    assert extensions.unregistered_hint(kind, "mine") == ""


def test_a_name_that_is_not_found_hints_at_files_that_are_no_python(folder):
    (folder / "a.py").write_text("@register_head('mine')\nclass Mine(:\n    pass\n")
    with pytest.raises(UsageError, match="There is no head 'mine'; .*; .*a.py, line 2, is not valid Python: invalid"):
        extensions.find("head", "mine")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("import a_module_of_nobody", r"a.py, line 3: ModuleNotFoundError: No module named 'a_module_of_nobody'; corr"),
        ("WIDTH = 1 / 0", "a.py, line 3: ZeroDivisionError: division by zero; correct this file"),
        ("from neighbour import WIDTH", r"neighbour.py, line 2: KeyError: 'a'; correct this file"),
        ("from invalid import WIDTH", r"invalid.py, line 1: SyntaxError: invalid syntax; correct this file"),
        ("raise SystemExit", "a.py, line 3: SystemExit; correct this file"),
    ],
)
def test_an_error_of_a_file_is_one_line_with_its_place(folder, mistake, message):
    (folder / "neighbour.py").write_text("\nWIDTH = {}['a']\n")
    (folder / "invalid.py").write_text("WIDTH = = 3\n")
    write(folder / "a.py", imports=mistake, width="WIDTH")
    with pytest.raises(UsageError, match=message) as caught:
        extensions.find("head", "mine").load()
    assert caught.value.exit_code == 2
    if "WIDTH" in mistake:  # the settings need it, too
        with pytest.raises(UsageError, match=message):
            extensions.find("head", "mine").config()


def test_a_file_that_is_no_python_is_skipped_with_a_warning(folder, caplog):
    (folder / "old.py").write_text("print 'register_head'\n")
    write(folder / "a.py")
    for _ in range(2):
        assert "mine" in extensions.names("head")
    assert caplog.text.count("old.py, which is not valid Python") == 1


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
