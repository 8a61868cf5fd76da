"""Cache of scores: one JSON file per case, with entries keyed by the content of the compared files."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.comparison.case_scores import PairScores
from nnunetv2.comparison.metric import AMONG, DISTANCES, METRICS, SKELETONS
from nnunetv2.errors import DataError
from nnunetv2.evaluation.confusion import LabelOrRegion, labels_of
from nnunetv2.imageio.geometry import mismatch_is_allowed

logger = logging.getLogger(__name__)

METRIC_CODE_VERSION = 2  # increase it if scores of the same files change
_BLOCK = 1 << 20  # bytes read at a time


class ScoringCache:
    """Scores of file pairs, stored in a folder.

    Keys hash the bytes of reference and prediction, plus the settings that their scores depend on: a changed file is
    scored again, a copied or renamed one is not. Each entry has a checksum, so that damaged or edited files are
    rejected. Within an entry, values are stored under `value_keys`; those of other settings or metrics are kept.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[LabelOrRegion],
        ignore_label: int | None,
        reader_name: str,
    ) -> None:
        self.folder = folder
        self._settings = {
            "metric code": METRIC_CODE_VERSION,
            "classes": [[int(label) for label in labels_of(region)] for region in classes],
            "ignore label": ignore_label,
            "reader": reader_name,
            "other grids allowed": mismatch_is_allowed(),
        }
        folder.mkdir(parents=True, exist_ok=True)

    def keys(self, reference: Path, predictions: Sequence[Path], field: Path | None = None) -> list[str]:
        """Compute the key of each prediction; `field` is the field of view. Raises `DataError` for unreadable files."""
        of_reference = _digest(reference)
        common = [self._settings, of_reference, *([] if field is None else [_digest(field)])]
        return [_hash_of([*common, _digest(prediction)]) for prediction in predictions]

    def load(self, case: str) -> dict[str, PairScores]:
        """Load the cached scores of a case by key; empty if the file is missing or invalid."""
        path = self._file(case)
        try:
            entries = read_json(path)
            return {key: _scores_of(key, entry) for key, entry in entries.items()}
        except FileNotFoundError:
            return {}
        except (DataError, OSError, ValueError, TypeError, KeyError, AttributeError) as err:
            logger.warning("%s holds no scores that can be used (%s); its case is scored again", path, err)
            return {}

    def save(self, case: str, scores: Mapping[str, PairScores]) -> None:
        """Replace the cached scores of a case."""
        write_json({key: _entry_of(key, each) for key, each in scores.items()}, self._file(case), sort_keys=True)

    def _file(self, case: str) -> Path:
        return self.folder / f"{case}.json"


def value_keys(metrics: Sequence[str], tolerance: float, among: Sequence[LabelOrRegion] = ()) -> dict[str, str]:
    """Storage key of each metric: its name plus everything beyond the files that its values depend on.

    Args:
        tolerance: of NSD, in mm.
        among: classes that the metrics "among classes" tell apart.
    """
    return {name: _value_key(name, tolerance, among) for name in metrics}


def _value_key(name: str, tolerance: float, among: Sequence[LabelOrRegion]) -> str:
    metric = METRICS[name]
    parts = [name]
    if metric.origin is not None:
        parts += [f"version {metric.version}", f"sha256 {metric.origin.sha256}"]
    if metric.origin is not None or DISTANCES in metric.reads:  # a user's metric may read more than it declares
        parts += [f"tolerance {tolerance!r}", f"monai {version('monai')}"]
    if SKELETONS in metric.reads:
        parts.append(f"scikit-image {version('scikit-image')}")
    if AMONG in metric.reads:
        parts.append(f"among {' and '.join('+'.join(map(str, labels_of(region))) for region in among)}")
    return ", ".join(parts)


def _digest(path: Path) -> str:
    """Hash a segmentation file together with its JSON sidecar, in which some formats store the spacing."""
    digest = hashlib.sha256()
    beside = Path(os.path.splitext(path)[0] + ".json")
    try:
        for part in (path, beside) if beside.is_file() else (path,):
            with open(part, "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
    except OSError as err:
        raise DataError(f"The segmentation {path} cannot be read: {err.strerror}") from err
    return digest.hexdigest()


def _hash_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _entry_of(key: str, scores: PairScores) -> dict[str, Any]:
    content = {
        "values": {name: [_null_for_nan(value) for value in each] for name, each in scores.values.items()},
        "num_reference": list(scores.num_reference),
        "num_predicted": list(scores.num_predicted),
        "voxel_volume": scores.voxel_volume,
        "num_dimensions": scores.num_dimensions,
        "diagonal": scores.diagonal,
    }
    return {"scores": content, "checksum": _hash_of([key, content])}


def _scores_of(key: str, entry: dict[str, Any]) -> PairScores:
    content = entry["scores"]
    if entry["checksum"] != _hash_of([key, content]):
        raise ValueError("a checksum is wrong")
    return PairScores(
        values={
            name: tuple(math.nan if value is None else value for value in each)
            for name, each in content["values"].items()
        },
        num_reference=tuple(content["num_reference"]),
        num_predicted=tuple(content["num_predicted"]),
        voxel_volume=content["voxel_volume"],
        num_dimensions=content["num_dimensions"],
        diagonal=content["diagonal"],
    )


def _null_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
