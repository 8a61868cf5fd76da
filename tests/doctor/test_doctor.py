"""What `nnUNetv2_doctor` says about installations that are broken in one place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from nnunetv2.doctor import folders, machine, packages
from nnunetv2.doctor.entry_point import doctor_entry
from nnunetv2.doctor.finding import Level

SANE = {"imports": dict.fromkeys(packages.IMPORTED), "cuda": {"built_for": "13.0", "available": False, "devices": []}}


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, str]]]:
    """Runs the command without its child processes; returns its findings that are not ok."""
    monkeypatch.setattr(packages, "probe", lambda: SANE)

    def run(expected_code: int) -> list[dict[str, str]]:
        assert doctor_entry(["--json", "--no_smoke_run"]) == expected_code
        findings = json.loads(capsys.readouterr().out)
        harmless = ("CUDA", "weights", "memory", "open files")
        return [each for each in findings if each["level"] != "ok" and each["check"] not in harmless]

    return run


def distribution(folder: Path, name: str, version: str, *needs: str) -> None:
    """Writes what pip leaves of a package, without the package."""
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {need}" for need in needs)]
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


def with_free_space(monkeypatch: pytest.MonkeyPatch, free: dict[str, int]) -> None:
    real = shutil.disk_usage

    def usage(path: str | Path) -> Disk:
        number = free.get(str(path))
        return Disk(*real(path)) if number is None else Disk(number, 0, number)

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_nothing_is_found_on_a_sane_machine(examine: Callable, nnunet_folders: dict, monkeypatch) -> None:
    with_free_space(monkeypatch, {str(path): 2**40 for path in (*nnunet_folders.values(), machine.SHARED_MEMORY)})
    assert examine(0) == []


def test_missing_variable(examine: Callable, nnunet_folders: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_results")
    (found,) = examine(2)
    assert (found["check"], found["level"], found["text"]) == ("nnUNet_results", "error", "is not set")
    assert found["cure"] == "run export nnUNet_results=/path/to/folder"


def test_folder_that_does_not_exist(examine: Callable, nnunet_folders: dict) -> None:
    nnunet_folders["nnUNet_raw"].rmdir()
    (found,) = examine(2)
    assert found["text"] == f"{nnunet_folders['nnUNet_raw']} does not exist"
    assert found["cure"] == f"run mkdir -p {nnunet_folders['nnUNet_raw']}"


def test_folder_that_cannot_be_written(examine: Callable, nnunet_folders: dict, monkeypatch) -> None:
    folder = nnunet_folders["nnUNet_results"]
    real = {name: getattr(Path, name) for name in ("write_bytes", "unlink")}

    def refusing(name: str) -> Callable:  # root may write everywhere but in a read-only file system
        def method(path: Path, *args: object, **kwargs: object) -> object:
            if path.parent == folder:
                raise OSError(30, "Read-only file system")
            return real[name](path, *args, **kwargs)

        return method

    for name in real:
        monkeypatch.setattr(Path, name, refusing(name))
    (found,) = examine(2)
    assert found["text"] == f"{folder} cannot be written to (Read-only file system)"
    assert list(folder.iterdir()) == []


def test_folder_without_write_permission(examine: Callable, nnunet_folders: dict) -> None:
    folder = nnunet_folders["nnUNet_preprocessed"]
    folder.chmod(0o555)
    findings = list(folders.check_roots())
    folder.chmod(0o755)
    (found,) = [each for each in findings if each.check == "nnUNet_preprocessed"]
    assert found.level is not Level.OK  # an error for users, a warning for root
    assert "writable only for root" in found.text or "cannot be written" in found.text


def test_full_disk(examine: Callable, nnunet_folders: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = nnunet_folders["nnUNet_preprocessed"]
    with_free_space(monkeypatch, {str(folder): 300 * 2**20})
    (found,) = examine(2)
    assert found["text"] == f"{folder}, 0.3 GiB free: the disk is full"


@pytest.mark.parametrize(("free", "level", "code"), [(10 * 2**20, "error", 2), (2**30, "warning", 0)])
def test_little_shared_memory(examine, nnunet_folders, monkeypatch, free: int, level: str, code: int) -> None:
    with_free_space(monkeypatch, {str(machine.SHARED_MEMORY): free})
    (found,) = examine(code)
    assert (found["check"], found["level"]) == ("shared memory", level)
    assert "--shm-size=8g" in found["cure"]


def test_pair_that_does_not_belong_together(examine, nnunet_folders, monkeypatch, tmp_path: Path) -> None:
    distribution(tmp_path, "torchvision", "0.26.0", "torch==2.11.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = examine(2)
    assert found["check"] == "torch pair"
    assert "torchvision 0.26.0, which was built for torch 2.11.0" in found["text"]
    assert "pip install torch==2.11.0 torchvision==0.26.0" in found["cure"]


def test_builds_for_different_cuda_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    distribution(tmp_path, "torch", "2.11.0+cu130")
    distribution(tmp_path, "torchvision", "0.26.0+cpu", "torch==2.11.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "different CUDA versions" in packages.check_torch_pair().text


def test_package_that_is_too_old(examine, nnunet_folders, monkeypatch, tmp_path: Path) -> None:
    distribution(tmp_path, "peft", "0.5.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = examine(2)
    assert found["text"].startswith("peft 0.5.0 is installed, peft>=")
    assert found["cure"].startswith('run pip install "peft>=')


def test_package_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_vision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = packages.probe(["json", "broken_vision", "absent_package"])
    assert answer["imports"]["json"] is None
    findings = {finding.text.split()[1]: finding for finding in packages.check_imports(answer)}
    assert findings["broken_vision"].cure == "install the torchvision that belongs to your torch"
    assert findings["absent_package"].cure == "run pip install absent_package"


def test_process_that_crashes_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (finding,) = packages.check_imports(packages.probe(["json", "crashing", "re"]))
    assert finding.text == "import crashing fails (the import ends the process with code -6)"


@pytest.mark.parametrize(
    ("built_for", "driver", "level"), [("13.0", None, "warning"), ("13.0", "470.1", "error"), (None, "580.2", "error")]
)
def test_gpus_that_torch_does_not_find(built_for: str | None, driver: str | None, level: str) -> None:
    answer = {"imports": {}, "cuda": {"built_for": built_for, "available": False, "devices": []}}
    (finding,) = packages.check_cuda(answer, driver)
    assert finding.level.value == level


def test_a_torch_that_does_not_answer(nnunet_folders: dict) -> None:
    (finding,) = packages.check_cuda({"imports": {"torch": None}}, "580.2")
    assert finding.text == "torch crashes or hangs when asked for GPUs"


@pytest.mark.parametrize(
    ("capability", "architectures", "level"),
    [
        ((9, 0), ["sm_80", "sm_90"], "ok"),
        ((8, 6), ["sm_80", "sm_90"], "ok"),
        ((7, 0), ["sm_75", "sm_90"], "error"),
        ((12, 0), ["sm_90", "compute_90"], "ok"),
        ((12, 0), ["sm_90"], "error"),
        ((10, 3), ["sm_100a", "sm_120"], "ok"),
    ],
)
def test_gpus_that_torch_has_no_kernels_for(capability: tuple[int, int], architectures: list[str], level: str) -> None:
    device = ["GPU", 24 * 2**30, *capability]
    cuda = {"built_for": "13.0", "available": True, "devices": [device], "architectures": architectures}
    (finding,) = packages.check_cuda({"imports": {}, "cuda": cuda}, "580.2")
    assert finding.level.value == level


def test_one_line_per_finding(nnunet_folders: dict, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(packages, "probe", lambda: SANE)
    monkeypatch.setenv("nnUNet_extensions", "/no/such/folder")
    assert doctor_entry(["--no_smoke_run"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in {"ok", "warning", "error"} for line in lines)
    assert "error    nnUNet_extensions: /no/such/folder does not exist; correct or unset nnUNet_extensions" in lines
    assert lines[-1].startswith("error    weights: nnUNet_extensions names /no/such/folder")  # the report went on


def test_an_error_in_a_backbone_file_is_a_finding(examine, nnunet_folders, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "@register_backbone('own')\nclass Own:\n    class Sizes:\n        rows = missing\n"
    )
    monkeypatch.setenv("nnUNet_extensions", str(tmp_path))
    assert folders.check_weights().level is Level.ERROR
    assert examine(2) == []  # nothing but the weights, which this list leaves out


@pytest.mark.slow
@pytest.mark.integration
def test_smoke_run_trains_and_predicts(nnunet_folders: dict[str, Path]) -> None:
    from nnunetv2.doctor.smoke_run import smoke_run

    finding = smoke_run("cpu")
    assert finding.level is Level.OK, finding
    assert all(list(folder.iterdir()) == [] for folder in nnunet_folders.values())


@pytest.mark.slow
@pytest.mark.integration
def test_smoke_run_says_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.doctor.smoke_run import smoke_run

    monkeypatch.setenv("nnUNet_n_proc_DA", "many")
    finding = smoke_run("cpu")
    assert finding.level is Level.ERROR
    assert "nnUNet_n_proc_DA" in finding.text
