"""What ensembling needs beside a segmentation: `CASE.npz` with scores, `CASE.pkl` with the image's properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.utilities.restricted_pickle import save_pickle


def write_probabilities(scores: np.ndarray, properties: dict[str, Any], output_file_truncated: str) -> None:
    """Writes the scores (K, Z, Y, X), under the name `probabilities`, and the properties.

    Args:
        output_file_truncated: path of the segmentation without its ending.
    """
    with replace_when_complete(f"{output_file_truncated}.npz") as temporary:
        np.savez_compressed(temporary, probabilities=scores)
    save_pickle(properties, f"{output_file_truncated}.pkl")


def remove_probabilities(output_file_truncated: str) -> None:
    """Deletes those of an older segmentation, which would be ensembled in place of the new one.

    Call it before the new segmentation is written: an older one without scores is complete, a newer one with the
    scores of the older one is not.
    """
    for ending in (".npz", ".pkl"):
        Path(f"{output_file_truncated}{ending}").unlink(missing_ok=True)
