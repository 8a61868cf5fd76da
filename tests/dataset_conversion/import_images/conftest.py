"""Runs the command in this process, and writes the pictures and masks that it imports."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dinov3.utils.atomic_files import read_json
from nnunetv2.dataset_conversion.import_images.entry_point import import_images_entry

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
Pixels = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Outcome:
    """What one call did."""

    code: int
    out: str
    err: str
    raw: Path

    @property
    def folder(self) -> Path:
        (folder,) = self.raw.glob("Dataset*")
        return folder

    @property
    def description(self) -> dict[str, Any]:
        return read_json(self.folder / "dataset.json")

    @property
    def splits(self) -> list[dict[str, list[str]]]:
        return read_json(self.folder / "splits_final.json")

    def rows(self) -> list[dict[str, str]]:
        with open(self.folder / "import.csv", newline="") as file:
            return list(csv.DictReader(file))

    def labels(self, case: str, part: str = "Tr") -> list[list[int]]:
        return np.asarray(Image.open(self.folder / f"labels{part}" / f"{case}.png")).tolist()

    def image(self, case: str, part: str = "Tr") -> np.ndarray:
        return np.asarray(Image.open(self.folder / f"images{part}" / f"{case}_0000.png"))

    def cases(self, part: str = "Tr") -> list[str]:
        return sorted(path.stem.removesuffix("_0000") for path in (self.folder / f"images{part}").glob("*.png"))


Run = Callable[..., Outcome]


@pytest.fixture
def run(
    nnunet_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Run:
    """Calls the command with relative paths below `tmp_path`; `-d 71 -n Vessels` unless other words give `-d`."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, dataset: bool = True) -> Outcome:
        caplog.clear()
        caplog.set_level("INFO")
        capsys.readouterr()
        own = ["-d", "71", "-n", "Vessels"] if dataset and "-d" not in words else []
        code = import_images_entry([*own, *map(str, words)])
        return Outcome(code, caplog.text, capsys.readouterr().err, nnunet_folders["nnUNet_raw"])

    return call


def save(path: str, pixels: Pixels | np.ndarray, **options: Any) -> None:
    """Writes a picture of uint8, uint16 or bool pixels below the current folder."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(pixels)
    array = array.astype(np.uint8) if array.dtype == np.int64 else array
    Image.fromarray(array).save(file, **options)


def save_photo(path: str, seed: int = 0, shape: tuple[int, ...] = (2, 2, 3), **options: Any) -> None:
    """Writes a picture of noise, a different one for each seed."""
    save(path, np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8), **options)


def save_palette(path: str, indices: Pixels, colours: Sequence[tuple[int, int, int]]) -> None:
    image = Image.fromarray(np.asarray(indices, np.uint8)).convert("P")
    image.putdata(np.ravel(indices).tolist())
    image.putpalette([value for colour in colours for value in colour] + [128] * (768 - 3 * len(colours)))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
