"""Row 27: archives with bad content install nothing and leave an installed model unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point
from tests.faults.conftest import one_line
from tests.faults.injection import times
from tests.model_sharing.test_model_import import BAD, UPSTREAM, files_below, rewritten

KINDS = sorted(BAD)[:: times(4, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_installed_model_survives_bad_archives(
    kind: str, nnunet_folders: dict[str, Path], tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    assert run(install_from_zip_entry_point, UPSTREAM)[0] == 0
    before = files_below(tmp_path)
    archive = rewritten(tmp_path / "bad.zip", BAD[kind][0])
    code, stderr = run(install_from_zip_entry_point, archive, "--overwrite")
    assert code == 3
    one_line(stderr)
    archive.unlink()
    assert files_below(tmp_path) == before
