"""Download a trained model and install it."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from tqdm import tqdm

from nnunetv2.errors import DataError, UsageError
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from nnunetv2.paths import nnUNet_results

logger = logging.getLogger(__name__)

_SCHEMES = ("http", "https", "file")
_TIMEOUT = 100  # seconds without a response
_HEADERS = {"User-Agent": "nnunetv2"}  # some servers reject Python's default user agent
_SHA256 = re.compile("[0-9a-f]{64}")
DEFAULT_CHUNK_SIZE = 2**17  # bytes


def download_and_install_from_url(url: str, overwrite: bool = False, sha256: str | None = None) -> None:
    """Download a zip file into a temporary folder, install it (see `install_model_from_zip_file`), and remove it.

    Args:
        sha256: expected checksum of the zip file, hexadecimal; None accepts any file.

    Raises:
        UsageError: `nnUNet_results` is not set, the URL or the checksum is invalid, or the model is already installed.
        DataError: the download is incomplete, has another checksum, or is not a trained model.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256.lower()):
        raise UsageError(f"{sha256!r} is no SHA-256, which has 64 hexadecimal digits; sha256sum FILE prints it")
    root = Path(nnUNet_results.require())
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download_", dir=root) as folder:
        archive = download_file(url, os.path.join(folder, "model.zip"))
        if sha256 is not None:
            require_sha256(archive, sha256, url)
        install_model_from_zip_file(archive, overwrite)


def download_file(url: str, local_filename: str | os.PathLike, chunk_size: int | None = DEFAULT_CHUNK_SIZE) -> str:
    """Download a file in chunks.

    Args:
        url: starts with http, https or file.
        local_filename: target path; removed again if the download fails.
        chunk_size: bytes; None uses the default.

    Returns:
        The path of the file.

    Raises:
        UsageError: the URL is invalid or cannot be opened.
        DataError: the connection was lost during the download.
    """
    if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
        raise UsageError(f"{url!r} is not a URL that begins with http://, https:// or file://")
    logger.info("Downloading %s", url)
    path = os.fspath(local_filename)
    try:
        with _opened(url) as source, open(path, "wb") as target:
            _copy(source, target, chunk_size or DEFAULT_CHUNK_SIZE)
    except (http.client.HTTPException, ConnectionError, TimeoutError) as err:
        Path(path).unlink(missing_ok=True)
        raise DataError(f"The download of {url} broke off ({_reason(err)}); try again") from err
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    return path


def require_sha256(path: str | os.PathLike, sha256: str, url: str) -> None:
    """Verify the checksum of a file.

    Args:
        sha256: hexadecimal digits in upper or lower case.
        url: source of the file, for the message.

    Raises:
        DataError: the file has another checksum.
    """
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(DEFAULT_CHUNK_SIZE):
            found.update(chunk)
    if found.hexdigest() != sha256.lower():
        raise DataError(
            f"{url} is another file than expected: its SHA-256 is {found.hexdigest()}, and not {sha256.lower()}; ask "
            f"where the URL is from. Nothing was installed"
        )


def _opened(url: str) -> IO[bytes]:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=_HEADERS), timeout=_TIMEOUT)
    except (OSError, ValueError, http.client.HTTPException) as err:
        raise UsageError(
            f"{url} could not be opened ({_reason(err)}); check the URL and the connection, or download the file in "
            f"another way and use nnUNetv2_install_pretrained_model_from_zip"
        ) from err


def _copy(source: IO[bytes], target: IO[bytes], chunk_size: int) -> None:
    announced = source.headers.get("Content-Length")
    total = int(announced) if announced and announced.isdecimal() else None
    received = 0
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as progress:
        while chunk := source.read(chunk_size):
            target.write(chunk)
            received += len(chunk)
            progress.update(len(chunk))
    if total is not None and received != total:
        raise http.client.IncompleteRead(b"", total - received)


def _reason(err: BaseException) -> str:
    if isinstance(err, http.client.IncompleteRead):
        return f"{err.expected} bytes are missing"
    reason = (
        err.reason if isinstance(err, urllib.error.URLError) and not isinstance(err, urllib.error.HTTPError) else err
    )
    return " ".join(str(reason).split()) or type(err).__name__
