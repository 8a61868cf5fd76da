"""What to do with predictions that are pictures of another format, for error messages."""

from __future__ import annotations

import os

from dinov3.utils.visible_files import visible_files

_PICTURES = (".gif", ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def other_pictures(folder: str | os.PathLike) -> str:
    """Ending of an error message about a folder without segmentations: names the cure if it has pictures; or empty."""
    files = [path.name for path in visible_files(folder, "") if path.suffix.lower() in _PICTURES]
    if not files:
        return ""
    return (
        f"; {len(files)} pictures of another format are there, such as {files[0]}: turn them into label maps with "
        "nnUNetv2_import_images --predictions"
    )
