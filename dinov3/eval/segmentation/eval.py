"""Evaluates a segmentation model: predicts every image of a dataset and compares it with its label map."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov3.eval.segmentation.config import RELEASED_SEGMENTOR, SegmentationConfig
from dinov3.eval.segmentation.data.batches import evaluation_samples
from dinov3.eval.segmentation.data.dataset import SegmentationDataset, dataset_of
from dinov3.eval.segmentation.data.labels import IGNORE_INDEX
from dinov3.eval.segmentation.evaluation.overlays import save_overlay
from dinov3.eval.segmentation.inference import make_inference
from dinov3.eval.segmentation.metrics import SegmentationMetrics
from dinov3.eval.segmentation.training.saved_model import load_saved_model
from dinov3.eval.segmentation.training.setup import build_model, training_device
from dinov3.eval.segmentation.training.step import forward_precision
from dinov3.eval.segmentation.transforms import View, make_segmentation_eval_transforms
from dinov3.utils.errors import DataError, UsageError
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.processes.process_group import rank_and_world_size
from dinov3.utils.yaml_config import plain_config

logger = logging.getLogger(__name__)

IMAGES_BETWEEN_REPORTS = 50
OVERLAYS_FOLDER = "overlays"

OnPrediction = Callable[[str, Tensor, Tensor], None]
"""Callback with name, reference and prediction (H, W) of each image."""


def test_segmentation(backbone: nn.Module | None, config: SegmentationConfig) -> dict[str, Any]:
    """Evaluates the weights that `config.load_from` names.

    Args:
        backbone: Backbone with loaded weights; None for the released segmentation model, which includes its own.
        config: Its `load_from` is the file or URL of a training's weights, or `dinov3_vit7b16_ms` for the released
            ADE20K model.

    Returns:
        See `SegmentationMetrics.compute`.

    Raises:
        UsageError: The settings contradict each other or the weights, or a file or folder does not exist.
        DataError: The weights do not fit the model, or an image or label map cannot be used.
    """
    if config.load_from == RELEASED_SEGMENTOR:
        model = _released_segmentor(config)
    else:
        model = build_model(backbone, config)
        load_saved_model(model, plain_config(config), config.load_from)
    return evaluate_on_validation_set(model, config, training_device(config), use_tta=config.eval.use_tta)


def evaluate_segmentation_model(
    segmentation_model: nn.Module,
    test_dataloader: Iterable[tuple[str, Sequence[View], Tensor]],
    device: torch.device | str,
    eval_res: int | None,
    eval_stride: int | None,
    decoder_head_type: str,
    num_classes: int,
    autocast_dtype: torch.dtype = torch.float32,
    *,
    inference_mode: str = "slide",
    compute_metric_per_image: bool = False,
    windows_per_forward: int = 1,
    on_prediction: OnPrediction | None = None,
) -> dict[str, Any]:
    """Predicts every image and computes the metrics over all processes.

    The scores of each view are converted to probabilities (softmax over classes, also for Mask2Former, as in Meta's
    code); the prediction is the class with the largest mean over the views. The model predicts in evaluation mode;
    afterwards the mode of every module is restored.

    Args:
        segmentation_model: See `slide_inference`; may be wrapped for distributed training.
        test_dataloader: Name, views and label map of the images of this process, see `evaluation_samples`. Every image
            is assigned to one process; a process may have none.
        device: Where to run; the model is moved there.
        eval_res: Side of a window in pixels, for "slide".
        eval_stride: Distance between windows in pixels, for "slide".
        decoder_head_type: "linear" or "m2f".
        num_classes: K.
        autocast_dtype: bfloat16 or float16 run the model under autocast.
        inference_mode: "slide" or "whole".
        compute_metric_per_image: See `SegmentationMetrics`.
        windows_per_forward: Maximum number of windows per forward pass.
        on_prediction: Called with every prediction.

    Returns:
        See `SegmentationMetrics.compute`: metrics in percent, identical in all processes.
    """
    device = torch.device(device)
    model = unwrap(segmentation_model).to(device)
    metrics = SegmentationMetrics(num_classes, compute_metric_per_image=compute_metric_per_image)
    with evaluation_mode(model), forward_precision(device, autocast_dtype):
        for name, views, label in test_dataloader:
            prediction = predict_label_map(
                model,
                views,
                label.shape,
                inference_mode=inference_mode,
                decoder_head_type=decoder_head_type,
                n_output_channels=num_classes,
                crop_size=None if eval_res is None else (eval_res, eval_res),
                stride=None if eval_stride is None else (eval_stride, eval_stride),
                windows_per_forward=windows_per_forward,
            )
            metrics.update(prediction, label.to(prediction.device))
            if on_prediction is not None:
                on_prediction(name, label, prediction)
            if metrics.num_images % IMAGES_BETWEEN_REPORTS == 0:
                logger.info("Validation: %d images done", metrics.num_images)
    return metrics.reduce().compute()


def predict_label_map(
    segmentation_model: nn.Module, views: Sequence[View], size: Sequence[int], **inference_settings: Any
) -> Tensor:
    """Predicts the class of every pixel: the largest mean probability over the views.

    Args:
        views: At least one.
        size: Height and width of the result.
        **inference_settings: Arguments of `make_inference`.

    Returns:
        (H, W) int64.
    """
    total: Tensor | None = None
    for view in views:
        probabilities = make_inference(
            view.image[None],
            segmentation_model,
            rescale_to=size,
            apply_horizontal_flip=view.is_flipped,
            output_activation=partial(torch.softmax, dim=1),
            **inference_settings,
        )
        # a larger view may have been assembled in main memory
        total = probabilities if total is None else total.add_(probabilities.to(total.device))
    return total[0].argmax(dim=0)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Sets evaluation mode inside the block and restores the mode of each module afterwards.

    Unlike `model.train()`, this keeps frozen parts of a model in their own mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate_on_validation_set(
    segmentation_model: nn.Module, config: SegmentationConfig, device: torch.device | str, *, use_tta: bool = False
) -> dict[str, Any]:
    """Evaluates a model on `config.datasets.val` with the settings of `config.eval` and `config.transforms`.

    Each process predicts its share of the images. Views have the size `config.transforms.eval.img_size`; None keeps the
    size of the files. A forward pass processes as many windows as a training step has images (`config.bs`): what fits
    into memory with gradients also fits without. With `config.eval.save_overlays`, pictures of all predictions are
    written to the folder `overlays` in `config.output_dir`.

    Args:
        use_tta: Test-time augmentation: predict at `config.transforms.eval.tta_ratios`, plain and mirrored.

    Returns:
        See `SegmentationMetrics.compute`.

    Raises:
        UsageError: There is no validation set, or its folder does not exist.
        DataError: An image or label map cannot be used, or all pixels of all label maps are ignored.
    """
    dataset = dataset_of(config, "val")
    transform = make_segmentation_eval_transforms(
        **vars(config.transforms.eval),
        use_tta=use_tta,
        reduce_zero_label=config.eval.reduce_zero_label,
        mean=config.transforms.mean,
        std=config.transforms.std,
    )
    rank, world_size = rank_and_world_size()
    results = evaluate_segmentation_model(
        segmentation_model,
        evaluation_samples(dataset, transform, rank=rank, world_size=world_size, num_workers=config.num_workers),
        device,
        config.eval.crop_size,
        config.eval.stride,
        config.decoder_head.type,
        config.decoder_head.num_classes,
        config.model_dtype.autocast_dtype,
        inference_mode=config.eval.mode,
        compute_metric_per_image=config.eval.compute_metric_per_image,
        windows_per_forward=config.bs,
        on_prediction=_overlay_writer(dataset, config) if config.eval.save_overlays else None,
    )
    _require_references(results, config)
    if rank == 0:
        shown = ", ".join(f"{name} {results[name]:.2f} %" for name in ("mIoU", "mDice", "mAcc", "aAcc"))
        logger.info("Validation, %d images: %s", results["num_images"], shown)
    return results


def _require_references(results: dict[str, Any], config: SegmentationConfig) -> None:
    """Detects uninformative label maps, usually masks of 0 and 255, which would score 100 %."""
    counted = [row["class"] for row in results["classes"] if row["reference_pixels"]]
    if results["num_images"] and not counted:
        raise DataError(
            f"All pixels of the label maps of datasets.val={config.datasets.val} are ignored ({IGNORE_INDEX}); write "
            f"the classes as 0 to {config.decoder_head.num_classes - 1}, or check eval.reduce_zero_label"
        )
    if len(counted) == 1:
        logger.warning(
            "The label maps of datasets.val=%s hold class %d alone, so that the metrics say next to nothing; see "
            "dinov3.eval.segmentation.dataset_check",
            config.datasets.val,
            counted[0],
        )


def _released_segmentor(config: SegmentationConfig) -> nn.Module:
    if config.decoder_head.type != "m2f":
        raise UsageError(
            f"load_from={RELEASED_SEGMENTOR} has a Mask2Former head; set decoder_head.type=m2f "
            f"instead of {config.decoder_head.type}"
        )
    from dinov3.hub.segmentors import dinov3_vit7b16_ms

    return dinov3_vit7b16_ms(autocast_dtype=config.model_dtype.autocast_dtype, check_hash=True)


def _overlay_writer(dataset: SegmentationDataset, config: SegmentationConfig) -> OnPrediction:
    """Returns a callback that draws each prediction on its image, which is read again at its original size."""
    if config.output_dir is None:
        raise UsageError("eval.save_overlays=true needs a folder to write to; set output_dir")
    folder = Path(config.output_dir) / OVERLAYS_FOLDER
    num_classes = config.decoder_head.num_classes
    index_of = {name: index for index, name in enumerate(dataset.names)}

    def write(name: str, reference: Tensor, prediction: Tensor) -> None:
        image = dataset[index_of[name]].image
        save_overlay(folder, name, image, reference, prediction, num_classes, config.datasets.class_names)

    return write
