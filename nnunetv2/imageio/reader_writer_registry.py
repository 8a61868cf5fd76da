"""Choose the class that reads the images of a dataset."""

from __future__ import annotations

import ast
import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter, are_endings
from nnunetv2.imageio.checked_reading import read_images
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.pictures import IMPORT_COMMAND, is_picture
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from nnunetv2.utilities import extensions
from nnunetv2.utilities.class_lookup import EXTENSIONS, find_by_name
from nnunetv2.utilities.file_errors import reported_with_place
from nnunetv2.utilities.registered_class import require_complete

logger = logging.getLogger(__name__)

# The first that can read a dataset's first image is used; those of users come behind.
LIST_OF_IO_CLASSES: list[type[BaseReaderWriter]] = [
    NaturalImage2DIO,
    SimpleITKIO,
    Tiff3DIO,
    NibabelIO,
    NibabelIOWithReorient,
]

_MAX_TRIES = 5  # files that are read until one of them is not damaged


def determine_reader_writer_from_dataset_json(
    dataset_json_content: dict,
    example_file: str | Sequence[str] | None = None,
    allow_nonmatching_filename: bool = False,
    verbose: bool = True,
) -> type[BaseReaderWriter]:
    """Returns the class that dataset.json asks for (`overwrite_image_reader_writer`), else one that fits its images.

    Args: as for `determine_reader_writer_from_file_ending`.

    Raises:
        DataError: no class can read the images, or dataset.json has no `file_ending`.
    """
    name = dataset_json_content.get("overwrite_image_reader_writer", "None")
    if name not in (None, "None"):
        try:
            return recursive_find_reader_writer_by_name(name)
        except UsageError as err:
            logger.warning("dataset.json: overwrite_image_reader_writer is not used. %s", err)
    if "file_ending" not in dataset_json_content:
        raise DataError('dataset.json has no key "file_ending", like ".nii.gz"')
    return determine_reader_writer_from_file_ending(
        dataset_json_content["file_ending"], example_file, allow_nonmatching_filename, verbose
    )


def reader_of_training_cases(dataset_json_content: dict, cases: Mapping[str, Mapping]) -> type[BaseReaderWriter]:
    """Returns the class for a dataset, based on all its images and labels.

    Args:
        dataset_json_content: content of dataset.json.
        cases: as from `get_filenames_of_train_images_and_targets`.

    Raises:
        DataError: as `determine_reader_writer_from_dataset_json`.
    """
    images = [image for case in cases.values() for image in case["images"]]
    labels = [case["label"] for case in cases.values()]
    return determine_reader_writer_from_dataset_json(dataset_json_content, [*images, *labels], verbose=False)


def determine_reader_writer_from_file_ending(
    file_ending: str,
    example_file: str | Sequence[str] | None = None,
    allow_nonmatching_filename: bool = False,
    verbose: bool = True,
) -> type[BaseReaderWriter]:
    """Returns the class that is for this ending and can read the examples.

    The headers of all examples are checked, so that neither a damaged file nor a single unusual one decides for the
    others: the class that accepts the most is used, and among equals the first one. Then it has to read one of them.
    Readers of users are asked where no reader of this package takes the ending, or none of those that do can read the
    examples.

    Args:
        file_ending: with its dot, `.nii.gz`.
        example_file: an image, or all images of a dataset; without it the ending alone decides.
        allow_nonmatching_filename: also try classes that are for other endings on the examples.
        verbose: log which class is used.

    Raises:
        DataError: there is none; the message says what each class had to say about the first example.
    """
    examples = _listed(example_file)
    failures: dict[str, str] = {}
    for group in _candidates(file_ending.lower(), has_examples=bool(examples)):
        offered = (reader for reader, fits in group if fits or (examples and allow_nonmatching_filename))
        chosen = _best(offered, examples, failures)
        if chosen is not None:
            logger.log(logging.INFO if verbose else logging.DEBUG, "Images are read by %s", chosen.__name__)
            return chosen
    if failures:
        raise DataError(
            f"No reader can read {examples[0]}. " + ". ".join(f"{name}: {reason}" for name, reason in failures.items())
        )
    by_import = f" ({IMPORT_COMMAND} imports such pictures as .png)" if is_picture(f"x{file_ending}") else ""
    raise DataError(
        f"There is no reader for files that end in {file_ending!r}; convert them to {', '.join(known_file_endings())}"
        f"{by_import}, or put a reader of your own into a folder that {EXTENSIONS} names"
        f"{extensions.unregistered_hint('reader', 'NAME')}"
    )


def _listed(example_file: str | Sequence[str] | None) -> list[str]:
    if example_file is None:
        return []
    return [example_file] if isinstance(example_file, (str, os.PathLike)) else list(example_file)


def _best(
    offered: Iterable[type[BaseReaderWriter]], examples: Sequence[str], failures: dict[str, str]
) -> type[BaseReaderWriter] | None:
    """The class that accepts the headers of most examples, the first among equals, and can read one of them."""
    accepted_by: dict[type[BaseReaderWriter], list[str]] = {}
    for candidate in offered:
        accepted = _accepted(candidate, examples, failures)
        if len(accepted) == len(examples) and (not examples or _reads_one(candidate, accepted, failures)):
            _warn_of_unusual(candidate, accepted_by, examples, failures)
            return candidate
        if len(accepted) < len(examples):
            accepted_by[candidate] = accepted
    for candidate in sorted(accepted_by, key=lambda each: -len(accepted_by[each])):
        if _reads_one(candidate, accepted_by[candidate], failures):
            return candidate
    return None


def _accepted(candidate: type[BaseReaderWriter], examples: Sequence[str], failures: dict[str, str]) -> list[str]:
    """The examples whose header suits a class; `failures` keeps what it said about the first that does not."""
    accepted = []
    reader = candidate()
    for path in examples:
        try:
            reader.check_header(path)
        except DataError as err:
            failures.setdefault(candidate.__name__, str(err))
        else:
            accepted.append(path)
    return accepted


def _reads_one(candidate: type[BaseReaderWriter], accepted: Sequence[str], failures: dict[str, str]) -> bool:
    """Whether a class can read one of a few examples: more than the first, since that may be damaged."""
    for path in accepted[:_MAX_TRIES]:
        try:
            read_images(candidate(), (path,))
        except DataError as err:
            failures.setdefault(candidate.__name__, str(err))
        else:
            return True
    return False


def _warn_of_unusual(
    chosen: type[BaseReaderWriter],
    accepted_by: Mapping[type[BaseReaderWriter], Sequence[str]],
    examples: Sequence[str],
    failures: Mapping[str, str],
) -> None:
    """Say so if few files decide against a class that suits the others; 2D and 3D TIFF share an ending as well."""
    for earlier, accepted in accepted_by.items():
        if 2 * len(accepted) > len(examples):
            logger.warning(
                "All images are read by %s, because %s cannot read all of them: %s",
                chosen.__name__,
                earlier.__name__,
                failures[earlier.__name__],
            )


def known_file_endings() -> list[str]:
    """The endings that this package's readers and those of users are for, in alphabetical order."""
    known = {ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings}
    return sorted(known.union(*(_endings_of(each) for each in extensions.of_users("reader"))))


def _candidates(ending: str, *, has_examples: bool) -> Iterator[Iterable[tuple[type[BaseReaderWriter], bool]]]:
    """This package's readers and those of users, in the order in which both are asked; true if they are for the ending.

    Those of users are loaded only where the others do not suffice.
    """
    own = [
        (
            reader,
            ending in reader.supported_file_endings or (has_examples and ending in reader.shared_file_endings),
        )
        for reader in LIST_OF_IO_CLASSES
    ]
    # SimpleITK opens many formats that it is not asked for here, so a reader for this very ending precedes it.
    yield from (own, _of_users(ending)) if any(fits for _, fits in own) else (_of_users(ending), own)


def _of_users(ending: str) -> Iterator[tuple[type[BaseReaderWriter], bool]]:
    for each in extensions.of_users("reader"):
        if ending in _endings_of(each):
            yield _load_of_user(each.name), True


def _load_of_user(name: str) -> type[BaseReaderWriter]:
    """Returns a user's reader. Raises `UsageError` if two files register it, or its name is one of this package."""
    found = extensions.find("reader", name)
    if name in [reader.__name__ for reader in LIST_OF_IO_CLASSES]:
        raise UsageError(f"{found.path}: {name} is the name of a reader of nnU-Net; give the class another name")
    return found.load()


def _endings_of(reader: extensions.Extension) -> list[str]:
    """`supported_file_endings`, read off the file without running it."""
    body = next(
        node.body
        for node in ast.parse(reader.path.read_bytes()).body
        if isinstance(node, ast.ClassDef) and node.name == reader.definition
    )
    for statement in body:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if "supported_file_endings" in [target.id for target in targets if isinstance(target, ast.Name)]:
            try:
                endings = ast.literal_eval(statement.value)
            except (ValueError, TypeError):
                endings = None
            if not are_endings(endings):
                raise UsageError(
                    f"{reader.path}, line {statement.lineno}: supported_file_endings of {reader.name} must be a list "
                    f'of literals with their dot, such as [".npy"]'
                )
            return [ending.lower() for ending in endings]
    return []


def recursive_find_reader_writer_by_name(rw_class_name: str) -> type[BaseReaderWriter]:
    """Returns the reader of that name in this package or in a folder of `nnUNet_extensions`.

    Raises:
        UsageError: there is none, or two files register it, or the file of a user is wrong.
    """
    if rw_class_name in extensions.names("reader"):
        return _load_of_user(rw_class_name)
    found = find_by_name("image reader/writer", rw_class_name)
    if not (inspect.isclass(found) and issubclass(found, BaseReaderWriter)):
        raise UsageError(f"{rw_class_name!r} in {found.__module__} does not read images")
    with reported_with_place(Path(inspect.getfile(found)), Path(inspect.getfile(found)).parent):
        require_complete(found, BaseReaderWriter)
    return found
