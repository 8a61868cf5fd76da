import sys
import textwrap

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.utilities.class_lookup import definitions_below, find_by_name, find_in_folder
from nnunetv2.utilities.find_class_by_name import (
    recursive_find_python_class,
    temporarily_cleanup_imports_from_path,
    temporarily_extend_syspath,
)
from nnunetv2.utilities.label_handling.label_handling import LabelManager


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder; what its files change in the interpreter is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def test_class_is_found_without_importing_its_neighbours(folder):
    write(folder / "wanted.py", "class Wanted: pass")
    write(folder / "neighbour.py", "raise RuntimeError('imported')")
    assert find_in_folder(folder, "Wanted").__name__ == "Wanted"
    assert find_in_folder(folder, "Missing") is None


def test_definition_nearest_to_the_folder_wins(folder):
    write(folder / "deep" / "a.py", "class Twice: place = 'deep'")
    write(folder / "z.py", "class Twice: place = 'near'")
    assert find_in_folder(folder, "Twice").place == "near"


def test_files_that_are_no_python_are_skipped_with_a_warning(folder, caplog):
    write(folder / "old.py", "print 'python 2'")
    write(folder / ".hidden" / "a.py", "class Hidden: pass")
    (folder / "binary.py").write_bytes(b"\x00\xff")
    write(folder / "good.py", "class Good: pass\ndef function(): pass")
    assert set(definitions_below(folder)) == {"Good", "function"}
    assert "old.py, which is not valid Python" in caplog.text


def test_equal_file_names_do_not_mix_and_neighbours_can_be_imported(folder):
    for part in ("one", "two"):
        write(folder / part / "utilities_of_user.py", f"NAME = '{part}'")
        write(folder / part / "trainers_of_user.py", f"class Trainer_{part}: place = '{part}'")
    assert find_in_folder(folder / "one", "Trainer_one").place == "one"
    assert find_in_folder(folder / "two", "Trainer_two").place == "two"
    write(folder / "three" / "own.py", "import helper_of_three\nclass Own: value = helper_of_three.VALUE")
    write(folder / "three" / "helper_of_three.py", "VALUE = 3")
    assert find_in_folder(folder / "three", "Own").value == 3


def test_file_named_like_a_library_is_the_users(folder):
    write(folder / "json.py", "class InJson: pass")
    found = find_in_folder(folder, "InJson")
    assert found.__name__ == "InJson"
    assert not hasattr(sys.modules["json"], "InJson")


def test_file_that_fails_is_not_kept(folder):
    write(folder / "random.py", "class Broken: pass\nraise RuntimeError('inside')")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="inside"):
            find_in_folder(folder, "Broken")


def test_package_is_searched_by_kind():
    assert find_by_name("label manager", "LabelManager") is LabelManager
    with pytest.raises(UsageError, match="no label manager named 'LabelManger' in .*; did you mean LabelManager"):
        find_by_name("label manager", "LabelManger")
    with pytest.raises(UsageError, match=r"did you mean nnUNetTrainer_m2f or "):
        find_by_name("trainer", "nnUNetTrainer_m2ff")
    with pytest.raises(UsageError, match="There is no trainer named 'AbstractPrimsu'") as raised:
        find_by_name("trainer", "AbstractPrimsu")
    assert "AbstractPrimus" not in str(raised.value)  # a shared base, which cannot train


def test_missing_external_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path / 'none'}")
    with pytest.raises(UsageError, match="nnUNet_extTrainer names .*none, which is not a folder"):
        find_by_name("trainer", "nnUNetTrainerOfNobody")


def test_external_trainers_are_found_after_the_package(monkeypatch, folder):
    write(folder / "a" / "mine.py", "class nnUNetTrainerOfTest: pass")
    (folder / "b").mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", f"{folder / 'b'}:{folder / 'a'}:")
    assert find_by_name("trainer", "nnUNetTrainerOfTest").__module__ == "mine"


def test_functions_of_the_package_are_no_readers():
    with pytest.raises(UsageError, match="'stack_channels' in nnunetv2.imageio.channel_grid does not read images"):
        recursive_find_reader_writer_by_name("stack_channels")


def test_upstreams_function_finds_and_forgets(folder):
    write(folder / "of_upstream_test.py", "class Found: pass")
    found = recursive_find_python_class(folder, "Found", None, cleanup_imports_from_base_folder=True)
    assert found.__name__ == "Found"
    assert "of_upstream_test" not in sys.modules
    assert recursive_find_python_class(str(folder), "Missing", None) is None


def test_path_is_extended_for_the_block_only(tmp_path):
    with temporarily_extend_syspath(tmp_path):
        assert sys.path[0] == str(tmp_path)
        with temporarily_extend_syspath(tmp_path):
            assert sys.path.count(str(tmp_path)) == 1
        assert sys.path[0] == str(tmp_path)
    assert str(tmp_path) not in sys.path


def test_only_new_modules_of_the_folder_are_forgotten(folder):
    write(folder / "forgotten_module.py", "VALUE = 1")
    with temporarily_extend_syspath(folder), temporarily_cleanup_imports_from_path(folder):
        import forgotten_module

        assert forgotten_module.VALUE == 1
    assert "forgotten_module" not in sys.modules
    assert "textwrap" in sys.modules


def test_a_broken_dependency_hides_no_other_trainer(monkeypatch):
    for missing in ("adan_pytorch", "timm", "dynamic_network_architectures.architectures.primus"):
        monkeypatch.setitem(sys.modules, missing, None)  # importing it fails
    names = ["nnUNetTrainerAdan", "nnUNet_Primus_S_Trainer", "nnUNetTrainerDA5", "nnUNetTrainer_5epochs"]
    for name in names:
        for loaded in [module for module in sys.modules if ".variants." in module or ".primus" in module]:
            monkeypatch.delitem(sys.modules, loaded)
        assert find_by_name("trainer", name).__name__ == name


def test_broken_files_among_external_trainers_hide_no_other(monkeypatch, folder, caplog):
    write(folder / "a_fails.py", "import a_module_of_nobody\nclass nnUNetTrainerFails: pass")
    write(folder / "b_invalid.py", "class nnUNetTrainerInvalid(:")
    write(folder / "neighbour_of_works.py", "EPOCHS = 3")
    write(folder / "works.py", "from neighbour_of_works import EPOCHS\nclass nnUNetTrainerWorks: num_epochs = EPOCHS")
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    assert find_by_name("trainer", "nnUNetTrainerWorks").num_epochs == 3
    assert "b_invalid.py, which is not valid Python" in caplog.text
    message = "a_fails.py, line 1: ModuleNotFoundError: No module named 'a_module_of_nobody'; correct this file"
    with pytest.raises(UsageError, match=message):
        find_by_name("trainer", "nnUNetTrainerFails")
    with pytest.raises(UsageError, match="named 'nnUNetTrainerWorkz' .*did you mean nnUNetTrainerWorks"):
        find_by_name("trainer", "nnUNetTrainerWorkz")
