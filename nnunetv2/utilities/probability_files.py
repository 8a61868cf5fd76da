"""Files for ensembling beside a segmentation: `CASE.npz` with scores, `CASE.pkl` with the image properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.utilities.restricted_pickle import save_pickle


def write_probabilities(scores: np.ndarray, properties: dict[str, Any], output_file_truncated: str) -> None:
    """Write the scores (K, Z, Y, X) under the name `probabilities`, and the image properties.

    Args:
        output_file_truncated: path of the segmentation without its ending.
    """
    with replace_when_complete(f"{output_file_truncated}.npz") as temporary:
        np.savez_compressed(temporary, probabilities=scores)
    save_pickle(properties, f"{output_file_truncated}.pkl")


def remove_probabilities(output_file_truncated: str) -> None:
    """Delete the files of an older segmentation, which would otherwise be ensembled instead of the new one.

    Call this before writing the new segmentation: after an interruption, an old segmentation without scores is still
    consistent, a new one with old scores is not.
    """
    for ending in (".npz", ".pkl"):
        Path(f"{output_file_truncated}{ending}").unlink(missing_ok=True)
