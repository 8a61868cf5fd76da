"""Predict logits of preprocessed images with a model, by sliding window or on whole images."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from dinov3.utils.network_wrappers import unwrap
from nnunetv2.errors import UsageError
from nnunetv2.inference.fold_weights import FoldWeights
from nnunetv2.inference.forward_batches import ForwardBatches
from nnunetv2.inference.mirroring import mirrorings, predict_mirrored
from nnunetv2.inference.model_files import available_folds
from nnunetv2.inference.model_loading import compile_if_wanted, load_trained_model
from nnunetv2.inference.sliding_window_prediction import Slicer, compute_gaussian, pad_to_tile_size, tile_slicers
from nnunetv2.inference.tile_aggregation import TileBlending, predict_tiles_within_memory
from nnunetv2.inference.weight_casts import call_outside_inference_mode, forget_casts, weights_cast_once
from nnunetv2.utilities.device_memory import free_bytes
from nnunetv2.utilities.file_names import check_file_ending
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

logger = logging.getLogger(__name__)

# A sum of logits leaves the rest to the next fold, whose logits take as much, and to its activations.
_LARGEST_SHARE_OF_FREE_MEMORY = 0.25
_LARGEST_WEIGHT = 10  # keeps the flanks of the Gaussian above the underflow of half precision


def half_precision(network: nn.Module, device: torch.device) -> AbstractContextManager:
    """Autocast on CUDA, to float16 or the network's `autocast_dtype`; elsewhere half precision is slow or missing."""
    if device.type != "cuda":
        return dummy_context()
    return torch.autocast("cuda", dtype=getattr(unwrap(network), "autocast_dtype", torch.float16))


def uses_sliding_window(network: nn.Module) -> bool:
    """Whether to predict by sliding window; networks with `use_sliding_window_inference=False` get whole images."""
    return getattr(unwrap(network), "use_sliding_window_inference", True)


class LogitPredictor:
    """Predicts logits of preprocessed images with one model, averaged over its folds.

    Some networks predict whole images, see `uses_sliding_window`: a single tile covers the image, in 2D each slice,
    without padding or weighting.

    Args:
        tile_step_size: distance of neighbouring tiles as a fraction of the tile; above 0, at most 1.
        use_gaussian: weight the centre of a tile more than its border.
        use_mirroring: average over mirrored copies, along the axes mirrored in training.
        perform_everything_on_device: keep image and logits on a CUDA device if they fit.
        verbose: log details of the computation.
        verbose_preprocessing: log details of the preprocessing.
        allow_tqdm: show a progress bar if the output is a terminal.
    """

    def __init__(
        self,
        tile_step_size: float = 0.5,
        use_gaussian: bool = True,
        use_mirroring: bool = True,
        perform_everything_on_device: bool = True,
        device: torch.device | str = torch.device("cuda"),  # noqa: B008 - immutable
        verbose: bool = False,
        verbose_preprocessing: bool = False,
        allow_tqdm: bool = True,
    ) -> None:
        self.tile_step_size = tile_step_size
        self.use_gaussian = use_gaussian
        self.use_mirroring = use_mirroring
        self.device = device = torch.device(device)
        self.perform_everything_on_device = perform_everything_on_device and device.type == "cuda"
        self.verbose = verbose
        self.verbose_preprocessing = verbose_preprocessing
        self.allow_tqdm = allow_tqdm

        self.plans_manager: PlansManager | None = None
        self.configuration_manager: ConfigurationManager | None = None
        self.list_of_parameters: list[dict] | None = None
        self.network: nn.Module | None = None
        self.dataset_json: dict | None = None
        self.trainer_name: str | None = None
        self.allowed_mirroring_axes: tuple[int, ...] | None = None
        self.label_manager: LabelManager | None = None
        self._fold_weights = FoldWeights()
        self._batches = ForwardBatches(device)

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str | os.PathLike,
        use_folds: Sequence[int | str] | int | str | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """Load a trained model.

        Args:
            model_training_output_dir: the folder `TRAINER__PLANS__CONFIGURATION`.
            use_folds: folds to average, numbers or "all"; None uses every numbered fold that has the checkpoint.

        Raises:
            UsageError: folder, fold or checkpoint does not exist; the message lists those that do.
            DataError: a file of the model is damaged or does not match the others.
        """
        model = load_trained_model(model_training_output_dir, use_folds, checkpoint_name)
        self.manual_initialization(
            model.network,
            model.plans_manager,
            model.configuration_manager,
            model.parameters,
            model.dataset_json,
            model.trainer_name,
            model.mirroring_axes,
        )

    def manual_initialization(
        self,
        network: nn.Module,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        parameters: list[dict] | None,
        dataset_json: dict,
        trainer_name: str,
        inference_allowed_mirroring_axes: tuple[int, ...] | None,
    ) -> None:
        """Use a model from memory.

        Args:
            parameters: weights of each fold; None keeps the network's current weights.

        Raises:
            DataError: the labels or the file ending in `dataset_json` are invalid.
        """
        if "file_ending" in dataset_json:  # becomes part of the names of outputs
            check_file_ending(dataset_json["file_ending"], "dataset.json")
        self.plans_manager = plans_manager
        self.configuration_manager = configuration_manager
        self.list_of_parameters = parameters
        self.network = compile_if_wanted(network)
        self._batches = ForwardBatches(self.device, may_grow=not self._is_compiled)
        self.dataset_json = dataset_json
        self.trainer_name = trainer_name
        self.allowed_mirroring_axes = inference_allowed_mirroring_axes
        self.label_manager = plans_manager.get_label_manager(dataset_json)
        if self.device.type == "cuda":
            # Benchmarking algorithms pays off only if all inputs have the same size.
            torch.backends.cudnn.benchmark = uses_sliding_window(network)

    @staticmethod
    def auto_detect_available_folds(model_training_output_dir: str | os.PathLike, checkpoint_name: str) -> list[int]:
        """Numbers of the folds that have the checkpoint."""
        return available_folds(model_training_output_dir, checkpoint_name)

    @torch.inference_mode()
    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        """Compute the mean logits of all folds.

        Args:
            data: (C, *spatial), preprocessed; for a cascade including the one-hot labels of the previous stage.

        Returns:
            float16 (K, *spatial) in main memory.
        """
        return self._logits_where_computed(data).cpu()

    @torch.inference_mode()
    def _logits_where_computed(self, data: torch.Tensor) -> torch.Tensor:
        """Like `predict_logits_from_preprocessed_data`, but on the device if the logits fit there."""
        if self.list_of_parameters is None:
            return self.predict_sliding_window_return_logits(data)
        total: torch.Tensor | None = None
        num_folds = len(self.list_of_parameters)
        for number in range(num_folds):
            with self._fold_weights.loaded(self.network, self.list_of_parameters, number, self.device):
                logits = self.predict_sliding_window_return_logits(data)
            if num_folds > 1 and logits.nbytes > _LARGEST_SHARE_OF_FREE_MEMORY * free_bytes(logits.device):
                logits = logits.cpu()  # the next fold needs the memory
            if total is None:
                total = logits
                continue
            # A fold may have run short of memory that the one before had; then the sum goes to main memory.
            total = total.to(logits.device) if logits.device.type == "cpu" else total
            total.add_(logits.to(total.device))
        return total if num_folds == 1 else total.div_(num_folds)

    @torch.inference_mode()
    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        """Compute logits with the current weights; for whole-image networks without a sliding window.

        Args:
            input_image: (C, *spatial) with three spatial axes; a 2D configuration predicts each slice along the first.

        Returns:
            float16 (K, *spatial), on the device if everything is done there.

        Raises:
            UsageError: the image does not have four axes.
        """
        if input_image.ndim != 4:
            raise UsageError(f"The image has shape {tuple(input_image.shape)}; it must be (C, X, Y, Z)")
        self.network = self.network.eval()
        image, inner = pad_to_tile_size(input_image, self._tile_size(input_image.shape[1:]))
        slicers = self._internal_get_sliding_window_slicers(image.shape[1:])
        if self.verbose:
            logger.info(
                "%d tiles on an image of size %s, mirrored along %s", len(slicers), image.shape[1:], self._mirror_axes
            )
        self._batches.start_case()
        casts = nullcontext() if self._is_compiled else weights_cast_once(unwrap(self.network), self.device)
        with half_precision(self.network, self.device), casts:
            logits = self._internal_predict_sliding_window_return_logits(
                image, slicers, self.perform_everything_on_device
            )
        return logits[inner]

    def _internal_get_sliding_window_slicers(self, image_size: Sequence[int]) -> list[Slicer]:
        return tile_slicers(tuple(image_size), self._tile_size(image_size), self.tile_step_size)

    def _tile_size(self, image_size: Sequence[int]) -> tuple[int, ...]:
        """Patch size of the plans, or for whole-image networks the size of the image, in 2D of its slices."""
        patch_size = tuple(self.configuration_manager.patch_size)
        return patch_size if uses_sliding_window(self.network) else tuple(image_size[-len(patch_size) :])

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K, *tile) of tiles (B, C, *tile)."""
        forward = functools.partial(self._batches.forward, self._call_network)
        return predict_mirrored(forward, x, self._mirror_axes, self._batches.size(x.shape[2:], x.device))

    def _call_network(self, images: torch.Tensor) -> torch.Tensor:
        if self._is_compiled or not torch.is_autocast_enabled(images.device.type):
            return self._network_to_call(images)
        return call_outside_inference_mode(self._network_to_call, images)

    @property
    def _is_compiled(self) -> bool:
        return self._network_to_call is not unwrap(self.network)

    @property
    def _network_to_call(self) -> nn.Module:
        # A compiled network would be compiled anew for every size of whole images, which takes longer than predicting.
        return self.network if uses_sliding_window(self.network) else unwrap(self.network)

    @property
    def _mirror_axes(self) -> tuple[int, ...] | None:
        return self.allowed_mirroring_axes if self.use_mirroring else None

    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: list[Slicer], do_on_device: bool = True
    ) -> torch.Tensor:
        """Compute blended logits (K, *spatial) of an image that the tiles cover."""
        tile_size = self._tile_size(data.shape[1:])
        weights = None
        if self.use_gaussian and uses_sliding_window(self.network):
            weights = compute_gaussian(tile_size, value_scaling_factor=_LARGEST_WEIGHT)
        blending = TileBlending(
            num_outputs=self.label_manager.num_segmentation_heads,
            weights=weights,
            device=self.device,
            tiles_per_forward=functools.partial(self._batches.num_tiles, tile_size, len(mirrorings(self._mirror_axes))),
            show_progress=self.allow_tqdm,
            context_slices=getattr(unwrap(self.network), "context_slices", 1),
        )
        predict = self._internal_maybe_mirror_and_predict
        return predict_tiles_within_memory(
            predict,
            data,
            slicers,
            blending,
            keep_on_device=do_on_device,
            place_network=self.network.to,
            free_memory=self._save_memory,
        )

    def _save_memory(self) -> None:
        self._fold_weights.free()
        self._batches.use_single_images()
        forget_casts(self.device)
