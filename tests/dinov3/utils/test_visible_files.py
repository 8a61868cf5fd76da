from __future__ import annotations

from pathlib import Path

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.visible_files import visible_files


def test_only_complete_files_with_the_ending_count_and_they_are_sorted(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nii.gz", "a.npz", "._a.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "folder.nii.gz").mkdir()
    with replace_when_complete(tmp_path / "c.nii.gz") as temporary:
        temporary.touch()
        assert visible_files(tmp_path, ".nii.gz") == [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
        assert visible_files(tmp_path) == [tmp_path / name for name in ("a.nii.gz", "a.npz", "b.nii.gz")]
    assert visible_files(str(tmp_path), "c.nii.gz") == [tmp_path / "c.nii.gz"]


def test_links_that_lead_nowhere_are_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "not mounted")
    (tmp_path / "folder").mkdir()
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "folder")
    assert visible_files(tmp_path) == [tmp_path / "a.nii.gz"]


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert visible_files(tmp_path / "missing") == []
