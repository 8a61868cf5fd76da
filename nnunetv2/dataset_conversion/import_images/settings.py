"""What `nnUNetv2_import_images` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2.errors import UsageError

HIGHEST_ID = 999


@dataclass(frozen=True)
class Settings:
    """The flags of the command; see its help.

    Raises:
        UsageError: flags contradict each other.
    """

    images: str | None = None
    masks: str | None = None
    dataset_id: int | None = None
    name: str | None = None
    test_images: str | None = None
    test_masks: str | None = None
    layout: str = "auto"
    pair: str | None = None
    labels: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    threshold: int | None = None
    snap: float | None = None
    overlap: str | None = None
    reduce_zero_label: bool = False
    fov: tuple[str, ...] = ()
    """`auto`, or the folder of `-i` and possibly that of `-ti`"""
    outside: str = "ignore"
    crop_fov: bool = False
    group: str | None = None
    folds: int | None = None
    grey: str = "repeat"
    alpha: str = "drop"
    depth: str = "keep"
    norm: str = "plans"
    images_without_mask: str | None = None
    add: bool = False
    overwrite: bool = False
    dry_run: bool = False
    preview: int = 0
    num_processes: int = 1

    def __post_init__(self) -> None:
        if self.add and self.overwrite:
            raise UsageError("--add keeps the cases of a dataset and --overwrite replaces them; choose one")
        if self.folds is not None and self.folds < 2:  # noqa: PLR2004 - folds of a cross-validation
            raise UsageError(f"--folds is {self.folds}; a cross-validation has at least 2 folds")
        if self.threshold is not None and not 1 <= self.threshold <= 255:  # noqa: PLR2004 - a byte
            raise UsageError(f"--threshold is {self.threshold}; it must be a grey value from 1 to 255")
        if self.snap is not None and not 0 <= self.snap <= 442:  # noqa: PLR2004 - from black to white
            raise UsageError(f"--snap is {self.snap}; it must be a distance from 0 to 442, that of black and white")
        if self.preview < 0:
            raise UsageError(f"--preview is {self.preview}; it must be a number of cases")
        if self.test_masks is not None and self.test_images is None:
            raise UsageError("-tm names test masks without test images; name these with -ti")
        if len(self.fov) > 2 or ("auto" in self.fov and len(self.fov) > 1):  # noqa: PLR2004 - training and test
            raise UsageError("--fov takes auto, the folder of -i, or the folders of -i and -ti")

    def required(self) -> tuple[int, str, str]:
        """Returns number, name and folder of pictures of a new dataset.

        Raises:
            UsageError: one is missing, or the number or name cannot be used.
        """
        missing = [
            flag for flag, value in (("-d", self.dataset_id), ("-n", self.name), ("-i", self.images)) if value is None
        ]
        if missing:
            raise UsageError(
                f"{', '.join(missing)} is missing; an import needs a number (-d), a name (-n) and pictures (-i)"
            )
        if not 0 <= self.dataset_id <= HIGHEST_ID:
            raise UsageError(f"The number of the dataset is {self.dataset_id}; it must be from 0 to {HIGHEST_ID} (-d)")
        return self.dataset_id, self.name, self.images
