"""Records what upstream nnU-Net's utilities and readers answer; run with upstream's interpreter:

UPSTREAM/bin/python tests/recorded/make_utilities_imageio.py tests/recorded/utilities_imageio.json
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import tempfile
from inspect import signature
from pathlib import Path

import nibabel
import numpy as np

LABELS = {
    "plain": [{"background": 0, "a": 1, "b": 2}, None],
    "ignore": [{"background": 0, "a": 1, "b": 2, "ignore": 3}, None],
    "single lists": [{"background": 0, "a": [1], "b": 2}, None],
    "regions": [{"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, [1, 2, 3]],
    "regions with ignore": [{"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, [1, 2]],
    "region with background": [{"background": 0, "all": [0, 1], "core": [1], "none": [0]}, [1, 2]],
    "region labels with a gap": [{"background": 0, "whole": [1, 2, 4], "enhancing": 4}, [1, 4]],
}

OLD_CONFIGURATION = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "patch_size": [32, 64, 64],
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 32,
    "n_conv_per_stage_encoder": [2, 2, 2, 2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2, 2, 2, 2],
    "num_pool_per_axis": [3, 5, 5],
    "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
    "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "unet_max_num_features": 320,
    "batch_size": 2,
}

AFFINES = {
    "plain": np.diag([0.5, 0.75, 3.0, 1.0]),
    "flipped": np.array([[-0.5, 0, 0, 12], [0, -0.75, 0, 7.5], [0, 0, 3, -4], [0, 0, 0, 1.0]]),
    "permuted": np.array([[0, 0, 3, 12], [-0.5, 0, 0, 7.5], [0, 0.75, 0, -4], [0, 0, 0, 1.0]]),
}


def scores(num_heads: int) -> np.ndarray:
    return np.random.RandomState(num_heads).randn(num_heads, 3, 4, 5).astype(np.float32)


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def label_managers() -> dict:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    answers = {}
    for name, (labels, order) in LABELS.items():
        # Upstream has no such argument: it accepts every order.
        accepted = {"allow_lost_regions": True} if "allow_lost_regions" in signature(LabelManager).parameters else {}
        manager = LabelManager(labels, order, **accepted)
        logits = scores(manager.num_segmentation_heads)
        segmentation = manager.convert_logits_to_segmentation(logits)
        answers[name] = {
            "all_labels": plain(manager.all_labels),
            "all_regions": plain(manager.all_regions),
            "foreground_labels": plain(manager.foreground_labels),
            "foreground_regions": plain(manager.foreground_regions) if manager.has_regions else None,
            "ignore_label": manager.ignore_label,
            "heads": manager.num_segmentation_heads,
            "segmentation": segmentation.ravel().tolist(),
            "segmentation_dtype": str(segmentation.dtype),
            "scores_sum": float(manager.apply_inference_nonlin(logits).double().sum()),
        }
    return answers


def readers() -> dict:
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        for reader in (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient):
            for name in AFFINES:
                answers[f"{reader.__name__} {name}.nii.gz"] = read_and_write(reader(), Path(folder), name, ".nii.gz")
        answers["SimpleITKIO slice.mha"] = read_and_write(SimpleITKIO(), Path(folder), "slice", ".mha")
        answers["NaturalImage2DIO rgb.png"] = read_and_write(NaturalImage2DIO(), Path(folder), "rgb", ".png")
        answers["Tiff3DIO stack.tif"] = read_and_write(Tiff3DIO(), Path(folder), "stack", ".tif")
    return answers


def write_images(folder: Path) -> None:
    import SimpleITK as sitk
    import tifffile
    from skimage import io as skimage_io

    random = np.random.RandomState(0)
    for name, affine in AFFINES.items():
        for channel in range(2):
            image = nibabel.Nifti1Image(random.randint(-1000, 1000, (4, 5, 6)).astype(np.int16), affine)
            nibabel.save(image, folder / f"{name}_{channel:04d}.nii.gz")
    image = sitk.GetImageFromArray(random.rand(7, 8).astype(np.float32))
    image.SetSpacing((0.5, 0.25))
    image.SetOrigin((3, 4))
    sitk.WriteImage(image, str(folder / "slice_0000.mha"))
    rgb = random.randint(0, 256, (7, 8, 3)).astype(np.uint8)
    skimage_io.imsave(str(folder / "rgb_0000.png"), rgb, check_contrast=False)
    tifffile.imwrite(folder / "stack_0000.tif", random.randint(0, 4096, (5, 6, 7)).astype(np.uint16))
    (folder / "stack.json").write_text('{"spacing": [3, 0.5, 0.25]}')


def read_and_write(reader: object, folder: Path, name: str, ending: str) -> dict:
    """What the reader returns for an image, and a label map that it writes on the image's grid, read by others."""
    import SimpleITK as sitk

    images = sorted(str(path) for path in folder.glob(f"{name}_????{ending}"))
    data, properties = reader.read_images(images)
    labels = (data[0] > np.median(data[0])).astype(np.uint8) * 7
    written = str(folder / f"{name}_{type(reader).__name__}{ending}")
    reader.write_seg(labels, written, properties)
    answer = {
        "dtype": str(data.dtype),
        "shape": list(data.shape),
        "data": digest(data),
        "properties": plain(properties),
        "labels": digest(reader.read_seg(written)[0]),
    }
    if not written.endswith((".tif", ".png")):
        image = sitk.ReadImage(written)
        answer["written"] = plain([image.GetSpacing(), image.GetOrigin(), image.GetDirection()])
        answer["written_pixels"] = [image.GetPixelIDTypeAsString(), digest(sitk.GetArrayFromImage(image))]
    return answer


def main(target: str) -> None:
    from nnunetv2.utilities import file_path_utilities as paths
    from nnunetv2.utilities.crossval_split import generate_crossval_split
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    with contextlib.redirect_stdout(io.StringIO()):
        recorded = {
            "label_managers": label_managers(),
            "splits": {str(n): plain(generate_crossval_split([f"case_{i:02d}" for i in range(n)])) for n in (5, 13)},
            "old_configuration": ConfigurationManager(json.loads(json.dumps(OLD_CONFIGURATION))).configuration,
            "paths": {
                "parsed": plain(
                    paths.parse_dataset_trainer_plans_configuration_from_path(
                        "/r/Dataset002_Heart/T__P__3d_fullres/fold_all"
                    )
                ),
                "ensemble": paths.get_ensemble_name("/r/A__P__2d", "/r/B__P__3d_fullres", (0, 1, 4)),
                "ensemble_parts": plain(
                    paths.convert_ensemble_folder_to_model_identifiers_and_folds(
                        "/r/ensemble___A__P__2d___B__P__2d___0_1"
                    )
                ),
                "folds": plain(paths.folds_string_to_tuple("0_1_all")),
            },
            "readers": readers(),
        }
    Path(target).write_text(json.dumps(recorded) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
