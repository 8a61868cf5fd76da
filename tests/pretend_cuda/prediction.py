"""Cases predicted on the pretended device, and what that copied to the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from nnunetv2.inference import case_export
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tests.inference.tiny_models import model_folder, read_image
from tests.pretend_cuda.device import CUDA, pretended_cuda


@dataclass(frozen=True)
class Predicted:
    """A predicted case.

    Attributes:
        segmentation: what was returned or written.
        waits: of the second prediction of the case.
        bytes_to_host: likewise.
    """

    segmentation: np.ndarray
    waits: list[str]
    bytes_to_host: int


def predict(configuration: str, folds: tuple[int, ...], output: Path | None, *, on_device: bool) -> Predicted:
    """Predicts the recorded image twice.

    Args:
        output: path without ending; None returns the segmentation.
        on_device: False takes the path of devices that have no memory for the conversion to labels.
    """
    converted = case_export.convert_logits_on_device if on_device else lambda *args: None
    with pretended_cuda() as log, mock.patch.object(case_export, "convert_logits_on_device", converted):
        predictor = nnUNetPredictor(device=torch.device("cuda"), allow_tqdm=False)
        predictor.device = CUDA
        predictor.initialize_from_trained_model_folder(model_folder(configuration), folds)
        image, properties = read_image(predictor)
        for _ in range(2):
            log.reset()
            segmentation = predictor.predict_single_npy_array(image, properties, None, output and str(output))
    if output is not None:
        segmentation, _ = predictor.plans_manager.image_reader_writer_class().read_seg(f"{output}.nii.gz")
    return Predicted(segmentation, log.waits, log.bytes_to_host)
