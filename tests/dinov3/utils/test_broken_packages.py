"""Packages that cannot be imported are told apart from bugs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from dinov3.utils.broken_packages import describe_broken_package
from dinov3.utils.command_line import command

BROKEN = "def check():\n    raise RuntimeError('operator vision::nms does not exist')\n\n\ncheck()\n"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def caught(module: str) -> BaseException:
    with pytest.raises(Exception) as caught:
        importlib.import_module(module)
    return caught.value


def test_the_package_whose_import_fails_is_named(packages: Path) -> None:
    (packages / "vision_a").mkdir()
    (packages / "vision_a" / "__init__.py").write_text("from vision_a import operators\n")
    (packages / "vision_a" / "operators.py").write_text(BROKEN)
    (packages / "models_a.py").write_text("import vision_a\n")
    expected = r"The package vision_a cannot be imported (RuntimeError: operator vision::nms does not exist)"
    assert describe_broken_package(caught("models_a")) == expected


def test_a_lazy_import_of_a_library_does_not_hide_the_package(packages: Path) -> None:
    (packages / "vision_b.py").write_text(BROKEN)
    (packages / "models_b.py").write_text(
        "def build():\n    try:\n        import vision_b\n    except Exception as err:\n"
        "        raise RuntimeError('Failed to import models') from err\n"
    )
    models = importlib.import_module("models_b")
    with pytest.raises(RuntimeError) as err:
        models.build()
    assert "package vision_b cannot be imported" in describe_broken_package(err.value)


def test_a_missing_package_is_named(packages: Path) -> None:
    (packages / "models_c.py").write_text("import package_that_nobody_has.part\n")
    assert describe_broken_package(caught("models_c")).startswith(
        "The package package_that_nobody_has is not installed"
    )


def test_bugs_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_file.py").write_text("1 / 0\n")
    assert describe_broken_package(caught("own_file")) is None
    assert describe_broken_package(caught("nnunetv2.no_such_module")) is None
    assert describe_broken_package(ValueError("a bug")) is None


def test_a_command_names_the_cure_in_one_line(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (packages / "vision_d.py").write_text(BROKEN)

    def main(argv: object) -> int:
        import vision_d  # noqa: F401

        return 0

    assert command(main)([]) == 2
    assert capsys.readouterr().err == (
        "error: The package vision_d cannot be imported (RuntimeError: operator vision::nms does not exist); "
        "nnUNetv2_doctor says what to install\n"
    )
