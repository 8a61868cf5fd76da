"""Makes recorded/inference/: three tiny models with random weights, an image, and what upstream predicts for it.

Run with an interpreter that has upstream nnU-Net 2.8.1 (nnunetv2==2.8.1) and not this project:

    python make_inference.py

`models/` holds a 3-D model with two folds, a 2-D one and the second stage of a cascade, with reordered axes, mirroring,
an image that is cropped and is smaller than a tile on one axis and larger on another. `expected.npz` holds upstream's
segmentations and probabilities (as float16), steps and Gaussians.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from make_inference_cases import GAUSSIANS, STEPS

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

HERE = Path(__file__).parent / "inference"
TRANSPOSE_FORWARD, TRANSPOSE_BACKWARD = [2, 0, 1], [1, 2, 0]
SHAPE, SPACING = (9, 11, 22), (3.0, 0.9, 1.2)  # z, y, x as the reader returns them


def architecture(dim):
    conv = f"torch.nn.modules.conv.Conv{dim}d"
    norm = f"torch.nn.modules.instancenorm.InstanceNorm{dim}d"
    kwargs = {
        "n_stages": 2,
        "features_per_stage": [2, 4],
        "conv_op": conv,
        "kernel_sizes": [[3] * dim] * 2,
        "strides": [[1] * dim, [2] * dim],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(dim):
    resampling = "resample_data_or_seg_to_shape"
    spline = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": f"nnUNetPlans_{dim}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8] * dim,
        "median_image_size_in_voxels": [16.0] * dim,
        "spacing": [1.5, 2.0, 1.0][-dim:],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [True],
        "resampling_fn_data": resampling,
        "resampling_fn_seg": resampling,
        "resampling_fn_data_kwargs": spline,
        "resampling_fn_seg_kwargs": {**spline, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": {**spline, "order": 1},
        "architecture": architecture(dim),
        "batch_dice": True,
    }


PLANS = {
    "dataset_name": "Dataset990_TinyModels",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [1.2, 3.0, 0.9],
    "original_median_shape_after_transp": [22, 9, 11],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": TRANSPOSE_FORWARD,
    "transpose_backward": TRANSPOSE_BACKWARD,
    "configurations": {
        "2d": configuration(2),
        "3d_fullres": configuration(3),
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {"mean": 100.0, "std": 20.0}},
}
DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "one": 1, "two": 2},
    "numTraining": 5,
    "file_ending": ".nii.gz",
}


def write_model(name, seeds):
    manager = PlansManager(PLANS)
    config = manager.get_configuration(name)
    folder = HERE / "models" / f"nnUNetTrainer__nnUNetPlans__{name}"
    num_inputs = 1 if config.previous_stage_name is None else 3
    for fold, seed in enumerate(seeds):
        torch.manual_seed(seed)
        network = nnUNetTrainer.build_network_architecture(manager, config, num_inputs, 3, enable_deep_supervision=True)
        with torch.no_grad():
            for layer in network.decoder.seg_layers:  # decided enough for a segmentation with all labels
                layer.weight.mul_(2)
        target = folder / f"fold_{fold}"
        target.mkdir(parents=True)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": name, "fold": fold},
            "inference_allowed_mirroring_axes": tuple(range(len(config.patch_size))),
        }
        torch.save(checkpoint, target / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    return folder


def write_images():
    generator = np.random.default_rng(5)
    image = np.zeros(SHAPE, np.float32)
    inner = (slice(1, 8), slice(2, 11), slice(0, 19))
    noise = torch.from_numpy(generator.normal(size=SHAPE)).float()[None, None]
    smooth = torch.nn.functional.avg_pool3d(noise, 3, 1, 1)[0, 0].numpy()
    image[inner] = 100 + np.round(60 * smooth[inner])
    previous = np.zeros(SHAPE, np.uint8)
    previous[2:6, 3:9, 4:12] = 1
    previous[3:5, 5:8, 10:16] = 2
    for folder, name, array in (("images", "case_0000", image), ("previous_stage", "case", previous)):
        (HERE / folder).mkdir()
        file = sitk.GetImageFromArray(array.astype(np.uint8))
        file.SetSpacing(SPACING[::-1])
        file.SetOrigin((5.0, -3.0, 2.0))
        sitk.WriteImage(file, str(HERE / folder / f"{name}.nii.gz"), useCompression=True)


def predict(folder, folds, cascade=False):
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    with tempfile.TemporaryDirectory() as output:
        previous = str(HERE / "previous_stage") if cascade else None
        predictor.predict_from_files_sequential(str(HERE / "images"), output, True, True, previous)
        probabilities = np.load(os.path.join(output, "case.npz"))["probabilities"]
        segmentation = sitk.GetArrayFromImage(sitk.ReadImage(os.path.join(output, "case.nii.gz")))
    return segmentation, probabilities.astype(np.float16)


def main():
    torch.set_num_threads(1)
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    write_images()
    results = {}
    for name, seeds, cascade in (
        ("3d_fullres", (0, 1), False),
        ("2d", (3,), False),
        ("3d_cascade_fullres", (7,), True),
    ):
        folder = write_model(name, seeds)
        folds = tuple(range(len(seeds)))
        results[f"{name}_segmentation"], results[f"{name}_probabilities"] = predict(folder, folds, cascade)
        print(name, np.bincount(results[f"{name}_segmentation"].ravel()))
    for number, (image, tile, step) in enumerate(STEPS):
        for axis, steps in enumerate(compute_steps_for_sliding_window(image, tile, step)):
            results[f"steps_{number}_{axis}"] = np.array(steps)
    for tile in GAUSSIANS:
        weights = compute_gaussian(tile, value_scaling_factor=10, device=torch.device("cpu"))
        results["gaussian_" + "x".join(map(str, tile))] = weights.numpy()
    np.savez_compressed(HERE / "expected.npz", **results)


if __name__ == "__main__":
    main()
