"""2D images of common formats, read with scikit-image."""

from __future__ import annotations

import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.channel_grid import as_smallest_label_type, naming, stack_channels

# These formats have no spacing. That of the slice axis is so large that no planner treats it as an in-plane axis.
_SPACING = (999, 1, 1)

_PNG_END = b"IEND\xae\x42\x60\x82"  # type and checksum of the last chunk


class NaturalImage2DIO(BaseReaderWriter):
    """2D images, grey, RGB or RGBA; colours become channels. No JPEG, since lossy compression corrupts label maps."""

    supported_file_endings = [".png", ".bmp", ".tif"]

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        return stack_channels([_load(path) for path in image_fnames], image_fnames), {"spacing": _SPACING}

    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict]:
        seg, properties = self.read_images((seg_fname,))
        if seg.shape[0] != 1:
            raise DataError(
                f"{seg_fname} is a colour image with {seg.shape[0]} channels; a label map has one channel whose values "
                f"are the labels: save it as a grey image"
            )
        return seg, properties

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        from skimage import io

        with replace_when_complete(output_fname) as temporary:
            io.imsave(str(temporary), as_smallest_label_type(seg[0]), check_contrast=False)


def _load(path: str) -> np.ndarray:
    """Read one file as an array (channels, 1, Y, X)."""
    from skimage import io

    with naming(path):
        if str(path).lower().endswith(".png"):
            _check_png_end(path)
        image = io.imread(path)
    if image.ndim == 2:
        return image[None, None]
    if image.ndim == 3 and image.shape[-1] in (3, 4):
        return np.moveaxis(image, -1, 0)[:, None]
    raise DataError(
        f"{path} has shape {list(image.shape)}; a 2-D image has shape [Y, X] if it is grey and [Y, X, 3 or 4] if it is "
        f"RGB or RGBA"
    )


def _check_png_end(path: str) -> None:
    """Raise if the last chunk is missing, since libraries accept files truncated after the last pixel."""
    with open(path, "rb") as file:
        if _PNG_END not in file.read():
            raise DataError(f"{path} is cut off: it has no end mark; copy or convert it again")
