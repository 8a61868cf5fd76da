"""Installing archives: upstream's and ours, whole or not at all; what is no trained model is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError, UsageError
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model_sharing import archive_members, model_import
from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point
from nnunetv2.model_sharing.model_export import export_pretrained_model
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from tests.inference.tiny_models import IMAGES, expected, model_folder
from tests.recorded.sharing_cases import DATASET, write_results

UPSTREAM = Path(__file__).parents[1] / "recorded" / "upstream_export.zip"
MODEL = f"{DATASET}/nnUNetTrainer__nnUNetPlans__2d"
CHECKPOINT = f"{MODEL}/fold_0/checkpoint_final.pth"


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def root(nnunet_folders: dict[str, Path]) -> Iterator[Path]:
    """`nnUNet_results`; after the test nothing of an installation is left beside the models."""
    folder = nnunet_folders["nnUNet_results"]
    yield folder
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Writes upstream's archive anew with changed files."""
    with zipfile.ZipFile(UPSTREAM) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


@pytest.mark.oracle
def test_upstreams_archive_is_installed_and_predicts(root):
    install_model_from_zip_file(UPSTREAM)
    with zipfile.ZipFile(UPSTREAM) as archive:
        assert files_below(root) == {name: archive.read(name) for name in archive.namelist()}
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(root / MODEL, (0,))
    image, properties = predictor.plans_manager.image_reader_writer_class().read_images(
        [str(IMAGES / "case_0000.nii.gz")]
    )
    segmentation = predictor.predict_single_npy_array(image, properties)
    assert (segmentation == expected()["2d_segmentation"]).mean() > 0.999


@pytest.mark.oracle
def test_what_is_exported_here_unpacks_as_upstream_does_it(root, tmp_path, monkeypatch):
    dataset = write_results(root)
    export_pretrained_model(DATASET, tmp_path / "model.zip", ["3d_fullres"], folds=[0, 1])
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:  # all that upstream's installation does
        archive.extractall(tmp_path / "upstream")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "ours"))
    install_model_from_zip_file(tmp_path / "model.zip")
    assert files_below(tmp_path / "ours") == files_below(tmp_path / "upstream")
    model = tmp_path / "ours" / DATASET / model_folder("3d_fullres").name
    for fold in ("fold_0", "fold_1"):
        checkpoint = Path(fold, "checkpoint_final.pth")
        assert (model / checkpoint).read_bytes() == (dataset / model.name / checkpoint).read_bytes()


def add(name: str, data: bytes = b"x") -> Callable[[dict[str, bytes]], None]:
    return lambda content: content.update({name: data})


def drop(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda content: content.pop(name) and None


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def with_network(name: str, argument: str | None = None) -> bytes:
    """Plans whose network, or an argument of it, is named by a dotted name."""
    keywords = {} if argument is None else {"conv_op": argument}
    architecture = {"network_class_name": name, "arch_kwargs": keywords, "_kw_requires_import": list(keywords)}
    return json.dumps({"configurations": {"2d": {"architecture": architecture}}}).encode()


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


OTHER_PLANS = b'{"configurations": {"2d": {"batch_size": 7}}}'
ELSEWHERE = "models are in DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/"
BAD = {
    "parent": (add("../evil.json"), "its path leads out of the folder"),
    "parent inside": (add(f"{MODEL}/../../../evil.json"), "its path leads out of the folder"),
    "absolute": (add("/tmp/evil.json"), "its path leads out of the folder"),
    "backslash": (add(f"{MODEL}\\..\\evil.json"), "forbidden characters"),
    "drive": (add("C:/evil.json"), "forbidden characters"),
    "long": (add(f"{MODEL}/{'a' * 300}.json"), "its name is too long"),
    "code": (add(f"{MODEL}/fold_0/setup.py"), "files of this kind are no part of a trained model"),
    "library": (add(f"{MODEL}/libevil.so"), "files of this kind are no part"),
    "beside datasets": (add("readme.txt"), ELSEWHERE),
    "no dataset": (add("Trainers/A__B__C/plans.json"), ELSEWHERE),
    "no model": (add(f"{DATASET}/trainer/plans.json"), ELSEWHERE),
    "no fold": (add(f"{MODEL}/fold_x/checkpoint_final.pth"), ELSEWHERE),
    "deep": (add(f"{MODEL}/fold_0/validation/more/summary.json"), ELSEWHERE),
    "twice": (add(CHECKPOINT.replace("checkpoint", "Checkpoint")), "is twice in the archive"),
    "no plans": (drop(f"{MODEL}/plans.json"), "not a whole model: it has no plans.json"),
    "no weights": (drop(CHECKPOINT), r"not a whole model: it has no a? ?checkpoint fold_X/\*.pth"),
    "nothing": (lambda content: content.clear(), "There is no trained model in the archive"),
    "bad json": (add(f"{MODEL}/plans.json", b"{"), "plans.json in the archive cannot be used: .*not valid JSON"),
    "other json": (add(f"{MODEL}/plans.json", b"{}"), "it is no plans.json of nnU-Net"),
    "list": (add(f"{MODEL}/dataset.json", b"[]"), "dataset.json holds .*it must be an object"),
    "plans that name os.system": (
        add(f"{MODEL}/plans.json", with_network("os.system")),
        "'os.system' was not imported: names in data files may come from",
    ),
    "plans that load from the hub": (add(f"{MODEL}/plans.json", with_network("torch.hub.load")), "torch.hub.load"),
    "plans that call exec": (add(f"{MODEL}/plans.json", with_network("builtins.exec")), "builtins.exec"),
    "plans that name a function": (
        add(f"{MODEL}/plans.json", with_network("torch.nn.init.zeros_")),
        "not a torch.nn.M",
    ),
    "an argument that names os.system": (
        add(f"{MODEL}/plans.json", with_network("torch.nn.Identity", "os.system")),
        "'os.system' was not imported",
    ),
    "reader that is a path": (
        add(f"{MODEL}/plans.json", b'{"image_reader_writer": "../x", "configurations": {"2d": {}}}'),
        "\"image_reader_writer\" is '../x'; it must be the name of a class",
    ),
    **{
        f"{key} that is a path": (
            add(f"{MODEL}/plans.json", b'{"configurations": {"2d": {}}, "%s": "../../escape"}' % key.encode()),
            f"'../../escape' cannot be the name of .*{key}",
        )
        for key in ("plans_name", "dataset_name")
    },
    **{
        f"{key} that is a path": (
            add(f"{MODEL}/plans.json", b'{"configurations": {"2d": {"%s": "../../escape"}}}' % key.encode()),
            "'../../escape' cannot be the name of ",
        )
        for key in ("data_identifier", "previous_stage", "next_stage", "inherits_from")
    },
    "configuration that is a path": (
        add(f"{MODEL}/plans.json", b'{"configurations": {"../../escape": {}}}'),
        "'../../escape' cannot be the name of a configuration",
    ),
    "file ending that is a path": (
        add(
            f"{MODEL}/dataset.json",
            b'{"channel_names": {"0": "a"}, "labels": {"background": 0, "b": 1}, "file_ending": "./../x.png"}',
        ),
        "'./../x.png' cannot be the name of files",
    ),
    "trainer that is a path": (
        add(CHECKPOINT, saved({"init_args": {"configuration": "2d"}, "network_weights": {}, "trainer_name": "../x"})),
        "\"trainer_name\" is '../x'; it must be the name of a class",
    ),
    "plans in a checkpoint that name os.system": (
        add(
            CHECKPOINT,
            saved(
                {
                    "init_args": {"configuration": "2d", "plans": json.loads(with_network("os.system"))},
                    "network_weights": {},
                    "trainer_name": "nnUNetTrainer",
                }
            ),
        ),
        "'os.system' was not imported",
    ),
    "no text": (add(f"{MODEL}/dataset.json", b"\xff\xfe\xff"), "dataset.json in the archive cannot be used"),
    "damaged weights": (
        add(CHECKPOINT, b"PK\x03\x04 no"),
        "checkpoint_final.pth in the archive cannot be used: .*damaged",
    ),
    "other weights": (add(CHECKPOINT, saved({"model": 1})), "no checkpoint of nnU-Net, it has no init_args, network_w"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_archives_are_refused_and_leave_nothing(kind, root, tmp_path):
    change, message = BAD[kind]
    archive = rewritten(tmp_path / "bad.zip", change)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message):
        install_model_from_zip_file(archive)
    assert set(tmp_path.rglob("*")) == before
    assert install_from_zip_entry_point([str(archive)]) == 3


@pytest.mark.parametrize("name", [CHECKPOINT, f"{MODEL}/crossval_results_folds_0/postprocessing.pkl"])
def test_files_that_run_code_are_not_installed(name, root, tmp_path):
    marker = tmp_path / "marker"
    code = RunsCode(marker)
    data = pickle.dumps(code) if name.endswith(".pkl") else saved({"network_weights": {}, "init_args": code})
    with pytest.raises(DataError, match="was not opened"):
        install_model_from_zip_file(rewritten(tmp_path / "bad.zip", add(name, data)))
    assert not marker.exists()
    assert not list(root.iterdir())


def test_the_function_that_postprocessing_names_is_allowed(root, tmp_path):
    pickled = (
        b"\x80\x04(cnnunetv2.postprocessing.remove_connected_components\n"
        b"remove_all_but_largest_component_from_segmentation\nl}\x86."
    )
    name = f"{MODEL}/crossval_results_folds_0/postprocessing.pkl"
    install_model_from_zip_file(rewritten(tmp_path / "model.zip", add(name, pickled)))
    assert (root / name).read_bytes() == pickled


def write_special(path: Path, mode: int) -> Path:
    shutil.copyfile(UPSTREAM, path)
    info = zipfile.ZipInfo(f"{MODEL}/fold_0/link.json")
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(mode, root, tmp_path):
    with pytest.raises(DataError, match=r"link.json' in the archive is not installed: it is a link or a special file"):
        install_model_from_zip_file(write_special(tmp_path / "bad.zip", mode))
    assert not list(root.iterdir())


def test_encrypted_files_are_refused(root, tmp_path):
    data = bytearray(UPSTREAM.read_bytes())
    start = data.index(b"PK\x01\x02")
    data[start + 8] |= 1  # the flag in the table of contents
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(DataError, match="it is encrypted"):
        install_model_from_zip_file(tmp_path / "bad.zip")


def test_bombs_are_refused_before_anything_is_unpacked(root, tmp_path, monkeypatch):
    bomb = rewritten(tmp_path / "bomb.zip", add(f"{MODEL}/fold_0/progress.png", bytes(5_000_000)))
    monkeypatch.setattr(archive_members, "RATIO_COUNTS_FROM", 1_000_000)
    monkeypatch.setattr(model_import, "_extract", None)
    with pytest.raises(DataError, match=r"The archive would grow from \d+ to 50\d+ bytes"):
        install_model_from_zip_file(bomb)
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 5)
    with pytest.raises(DataError, match=r"The archive has \d+ files; a model has at most 5"):
        install_model_from_zip_file(bomb)


def test_an_archive_larger_than_the_disk_is_refused(root, monkeypatch):
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"needs \d+ bytes and nnUNet_results has 1000 left"):
        install_model_from_zip_file(UPSTREAM)


@pytest.mark.parametrize("position", [300, 5000])
def test_damaged_archives_are_refused(position, root, tmp_path):
    data = bytearray(UPSTREAM.read_bytes())
    data[position] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"bad.zip is not a zip file, or a damaged one"):
        install_model_from_zip_file(tmp_path / "bad.zip")
    (tmp_path / "bad.zip").write_bytes(data[:position])
    with pytest.raises(DataError, match=r"bad.zip is not a zip file, or a damaged one"):
        install_model_from_zip_file(tmp_path / "bad.zip")
    assert not list(root.iterdir())


def test_what_systems_leave_in_archives_is_passed_over(root, tmp_path):
    def litter(content: dict[str, bytes]) -> None:
        content.update({f"__MACOSX/{MODEL}/._plans.json": b"x", f"{DATASET}/.DS_Store": b"x", f"{MODEL}/": b""})

    install_model_from_zip_file(rewritten(tmp_path / "model.zip", litter))
    with zipfile.ZipFile(UPSTREAM) as archive:
        assert set(files_below(root)) == set(archive.namelist())


def test_a_second_installation_changes_nothing(root, caplog):
    caplog.set_level("INFO")
    install_model_from_zip_file(UPSTREAM)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    install_model_from_zip_file(UPSTREAM)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times
    assert "is there already, with the same files" in caplog.text


def test_a_model_that_is_there_is_replaced_only_if_asked(root, tmp_path):
    install_model_from_zip_file(UPSTREAM)
    own = root / MODEL / "fold_1" / "checkpoint_final.pth"
    own.parent.mkdir()
    shutil.copyfile(root / CHECKPOINT, own)
    before = files_below(root)
    other = rewritten(tmp_path / "other.zip", add(f"{MODEL}/plans.json", OTHER_PLANS))
    with pytest.raises(
        UsageError, match=rf"other files already where the archive has {MODEL}/plans.json; .*--overwrite"
    ):
        install_model_from_zip_file(other)
    assert files_below(root) == before
    assert install_from_zip_entry_point([str(other), "--overwrite"]) == 0
    assert (root / MODEL / "plans.json").read_bytes() == OTHER_PLANS
    assert not own.exists()  # of another model: with these plans it could not predict


def test_folds_that_are_missing_are_added(root, tmp_path):
    install_model_from_zip_file(UPSTREAM)
    before = files_below(root)
    checkpoint = before[CHECKPOINT]
    install_model_from_zip_file(
        rewritten(tmp_path / "more.zip", add(f"{MODEL}/fold_1/checkpoint_final.pth", checkpoint))
    )
    assert files_below(root) == before | {f"{MODEL}/fold_1/checkpoint_final.pth": checkpoint}


def test_notes_about_all_models_of_a_dataset_do_not_stand_in_the_way(root, tmp_path):
    note = root / DATASET / "inference_information.json"
    note.parent.mkdir()
    note.write_text("{}")
    install_model_from_zip_file(UPSTREAM)
    assert note.read_text() == "{}"
    install_model_from_zip_file(UPSTREAM, overwrite=True)
    assert "inference_information.json" in note.read_text()


def test_a_failure_while_replacing_puts_the_older_model_back(root, tmp_path, monkeypatch):
    install_model_from_zip_file(UPSTREAM)
    before = files_below(root)
    replace = os.replace

    def fail_for_new_ones(source: Path, target: Path) -> None:
        if "new" in Path(source).parts:
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_for_new_ones)
    other = rewritten(tmp_path / "other.zip", add(f"{MODEL}/plans.json", OTHER_PLANS))
    with pytest.raises(OSError, match="No space left"):
        install_model_from_zip_file(other, overwrite=True)
    assert files_below(root) == before


def test_results_must_be_set_and_the_file_there(root, tmp_path, monkeypatch, capsys):
    assert install_from_zip_entry_point([str(tmp_path / "nowhere.zip")]) == 2
    assert "error: There is no file" in capsys.readouterr().err
    monkeypatch.delenv("nnUNet_results")
    assert install_from_zip_entry_point([str(UPSTREAM)]) == 2
    error = capsys.readouterr().err
    assert "nnUNet_results is not set" in error
    assert error.count("\n") == 1
    assert np.array_equal(list(root.iterdir()), [])
