"""Interface of the image readers and writers."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nnunetv2.errors import UsageError
from nnunetv2.utilities.registered_class import require_complete

ReaderClass = TypeVar("ReaderClass", bound="type[BaseReaderWriter]")


class BaseReaderWriter(ABC):
    """Reads the images of a case as one array, and reads and writes label maps.

    Arrays have four axes: channels (one for label maps), then z, y, x. 2D images get a first spatial axis of length 1
    with a spacing far larger than the others, so that nnU-Net treats it as the slice axis.

    The properties are a dictionary with at least the key `spacing`: three numbers in mm, in the order of the spatial
    axes; 1 if the format has no spacing. All other entries are for `write_seg`, which restores from them what the
    array has lost. Properties are pickled and may only contain plain Python data and numpy arrays.

    A class for another format names the endings it can read and is registered by `register_reader`; its file goes into
    a folder of the environment variable `nnUNet_extensions`, see docs/extending.md.
    """

    supported_file_endings: list[str] = []
    shared_file_endings: list[str] = []
    """Endings of another reader, of which this one reads some files; it is asked where there are examples."""
    input_file_endings: list[str] = []
    """Endings of further images that models predict, whatever the ending of their dataset."""

    def has_spacing(self, file: str) -> bool:
        """Whether a file says how large its pixels are; if not, lengths are in pixels."""
        return True

    @staticmethod
    def _check_all_same(input_list: Sequence[Any]) -> bool:
        """Whether all entries (numbers, or sequences of them) are close to the first."""
        first = np.asarray(input_list[0])
        return all(first.shape == np.shape(other) and np.allclose(first, np.asarray(other)) for other in input_list[1:])

    @staticmethod
    def _check_all_same_array(input_list: Sequence[np.ndarray]) -> bool:
        """Whether all arrays have the shape of the first and similar values."""
        return BaseReaderWriter._check_all_same(input_list)

    @abstractmethod
    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        """Read the channels of one case.

        Args:
            image_fnames: one file per channel, in channel order; a file may hold several channels (RGB).

        Returns:
            float32 array (C, Z, Y, X), and the properties.

        Raises:
            DataError: a file is missing, damaged or unsupported, or the files lie on different grids.
        """

    @abstractmethod
    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict]:
        """Read a label map: float32 array (1, Z, Y, X), and the properties; raises like `read_images`."""

    @abstractmethod
    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        """Write a label map on the grid of its image.

        Args:
            seg: integers (Z, Y, X) on the grid of the array that `read_images` returned; Z is 1 for 2D images.
            output_fname: target path with ending; written atomically.
            properties: as returned by `read_images` for the image.
        """

    def as_channels(self, image: np.ndarray, channels: Sequence[str], image_fname: str) -> np.ndarray:
        """Adapt an image to predict to the channels of its model, where the file stores the same in another way.

        By default, images stay as they are; the number of channels is checked afterwards.

        Args:
            image: (C, Z, Y, X) from a single file, with another number of channels than the model.
            channels: names of the model's channels.
            image_fname: for messages.

        Raises:
            DataError: the file stores something else.
        """
        return image

    def check_header(self, image_fname: str) -> None:
        """Check, without reading voxels, whether this reader could read the file; by default, nothing is checked.

        Raises:
            DataError: it cannot: the file is missing, damaged, too large or of another kind.
        """
        return

    def companion_files(self, image_fname: str) -> list[str]:
        """Other files beside an existing image or label map that must be copied with it; none by default.

        Examples are the voxels of a detached header, or a file with the spacing.
        """
        return []


def require_endings(reader: type[BaseReaderWriter]) -> None:
    """Rejects a reader that does not say which file endings it is for, or says it wrongly.

    Raises:
        UsageError: names the class.
    """
    endings = reader.supported_file_endings
    if endings is BaseReaderWriter.supported_file_endings:
        raise UsageError(
            f'{reader.__name__} must set supported_file_endings, such as [".npy"], or [] for a reader that only '
            f"dataset.json chooses"
        )
    if not are_endings(endings):
        raise UsageError(
            f"{reader.__name__}.supported_file_endings is {endings!r}; it must be a list of endings with their dot, "
            f'such as [".npy"]'
        )


def are_endings(endings: Any) -> bool:
    """True for a list or tuple of texts that begin with a dot."""
    return isinstance(endings, (list, tuple)) and all(isinstance(each, str) and each[:1] == "." for each in endings)


def register_reader(name: str) -> Callable[[ReaderClass], ReaderClass]:
    """Class decorator that names a reader of a user; files are searched for it before they run.

    The name is a literal and that of the class, which plans and dataset.json hold. `supported_file_endings` is a list
    of literals, too, because the file runs only if its reader is chosen.
    """

    def register(reader: ReaderClass) -> ReaderClass:
        if reader.__name__ != name:
            raise UsageError(
                f"Plans name readers by their class; register {reader.__name__} by that name, not {name!r}"
            )
        require_complete(reader, BaseReaderWriter)
        require_endings(reader)
        file = Path(getattr(sys.modules[reader.__module__], "__file__", None) or f"{reader.__module__}.py")
        # A file whose name is taken is imported under another one, by which worker processes would not find it.
        if file.stem != reader.__module__.rpartition(".")[2]:
            raise UsageError(f"Python has another module called {file.stem}; give the reader's file another name")
        return reader

    return register
