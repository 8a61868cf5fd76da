import sys

import pytest
from torch import nn

from nnunetv2.errors import DataError
from nnunetv2.utilities.allowed_imports import import_allowed


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("torch.nn.LeakyReLU", nn.LeakyReLU),
        ("torch.nn.modules.conv.Conv3d", nn.Conv3d),
        ("torch.nn.functional.gelu", nn.functional.gelu),
        ("torch.nn.Missing", None),
        ("torch.nn.missing.Conv3d", None),
    ],
)
def test_building_blocks_are_resolved(path, expected):
    assert import_allowed(path) is expected


def test_network_classes_are_resolved():
    path = "dynamic_network_architectures.building_blocks.residual.BasicBlockD"
    assert issubclass(import_allowed(path), nn.Module)


@pytest.fixture
def evil_module(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    (tmp_path / "evilmod.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass X: pass")
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    sys.modules.pop("evilmod", None)


@pytest.mark.parametrize(
    "path",
    [
        "evilmod.X",
        "os.system",
        "torch.hub.load",
        "builtins.exec",
        "torchx.nn.X",
        "torch.nnx.X",
        "nnunetv2x.Y",
        "timmy.Z",
    ],
)
def test_other_modules_are_refused_before_import(evil_module, path):
    with pytest.raises(
        DataError, match="was not imported: names in data files may come from torch.nn, dynamic_network"
    ):
        import_allowed(path)
    assert not evil_module.exists()
    assert "evilmod" not in sys.modules


@pytest.mark.parametrize(
    "path",
    [
        "nnunetv2.paths.os",
        "dinov3.utils.atomic_files.write_json",
        "dinov3.utils.atomic_files.Path",
        "nnunetv2.utilities.restricted_pickle.save_pickle",
        "torch.nn.functional.torch",
        "torch.nn.Parameter",
        "torch.nn.init.kaiming_normal_",
    ],
)
def test_what_is_no_building_block_is_refused(path):
    with pytest.raises(DataError, match="was not used: it is not a torch.nn.Module class"):
        import_allowed(path)


def test_walking_through_attributes_is_impossible():
    assert import_allowed("torch.nn.functional.torch.hub.load") is None


@pytest.mark.parametrize("path", ["exec", "", ".x", "a b.c", "torch.nn.", None, 3])
def test_text_that_is_no_dotted_name_is_refused(path):
    with pytest.raises(DataError, match="is not a dotted name"):
        import_allowed(path)


def test_users_folder_may_hold_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_networks").mkdir()
    (tmp_path / "my_networks" / "small.py").write_text("class Small: pass\ndef make(): pass")
    with pytest.raises(DataError, match="was not imported"):
        import_allowed("my_networks.small.Small")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    assert import_allowed("my_networks.small.Small").__name__ == "Small"
    assert import_allowed("my_networks.small.make").__name__ == "make"
    assert import_allowed("my_networks.small.missing") is None
