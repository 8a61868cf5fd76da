"""Download a trained model and install it."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from tqdm import tqdm

from nnunetv2.errors import DataError, UsageError
from nnunetv2.model_sharing.archive_members import DEFAULT_MAX_GB
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from nnunetv2.paths import nnUNet_results

logger = logging.getLogger(__name__)

_SCHEMES = ("http", "https", "file")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_TIMEOUT = 100  # seconds without a response
_HEADERS = {"User-Agent": "nnunetv2"}  # some servers reject Python's default user agent
_SHA256 = re.compile("[0-9a-f]{64}")
DEFAULT_CHUNK_SIZE = 2**17  # bytes


def download_and_install_from_url(
    url: str,
    overwrite: bool = False,
    sha256: str | None = None,
    *,
    allow_http: bool = False,
    max_gb: float = DEFAULT_MAX_GB,
) -> None:
    """Download a zip file into a temporary folder, install it (see `install_model_from_zip_file`), and remove it.

    Args:
        sha256: expected checksum of the zip file, hexadecimal; None accepts any file.
        allow_http: also download without encryption and without a checksum.
        max_gb: size limit; less is accepted where less space is free.

    Raises:
        UsageError: `nnUNet_results` is not set, the URL or the checksum is invalid, or the model is already installed.
        DataError: the download is incomplete, has another checksum, or is not a trained model.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256.lower()):
        raise UsageError(f"{sha256!r} is no SHA-256, which has 64 hexadecimal digits; sha256sum FILE prints it")
    if not max_gb > 0:
        raise UsageError(f"The size limit is {max_gb} GB; it must be above 0 (--max_gb)")
    _require_trusted_way(url, has_checksum=sha256 is not None or allow_http)
    root = Path(nnUNet_results.require())
    root.mkdir(parents=True, exist_ok=True)
    largest = min(int(max_gb * 10**9), shutil.disk_usage(root).free)
    with tempfile.TemporaryDirectory(prefix=".download_", dir=root) as folder:
        archive = download_file(url, os.path.join(folder, "model.zip"), largest=largest)
        if sha256 is not None:
            require_sha256(archive, sha256, url)
        install_model_from_zip_file(archive, overwrite)


def _require_trusted_way(url: str, *, has_checksum: bool) -> None:
    """Reject plain http to other machines, on whose way anybody can replace the file."""
    parts = _split(url)
    if parts.scheme != "http" or has_checksum:
        return
    if parts.hostname is not None and parts.hostname not in _THIS_MACHINE:
        raise UsageError(
            f"{url} is not encrypted, so the file could be replaced on its way; use https://, give its checksum "
            f"(--sha256), or allow it (--allow_http)"
        )
    logger.warning("%s is not encrypted (http); use it only on your own machine", url)


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(url)
    except ValueError as err:
        raise UsageError(f"{url!r} is not a URL ({err}); it looks like https://example.org/model.zip") from err


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Rejects redirects from https to anything else."""

    def redirect_request(  # noqa: PLR0913 - the base class's parameters
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and scheme != req.type:
            raise urllib.error.URLError(f"it leads on to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download_file(
    url: str,
    local_filename: str | os.PathLike,
    chunk_size: int | None = DEFAULT_CHUNK_SIZE,
    *,
    largest: int | None = None,
) -> str:
    """Download a file in chunks.

    Args:
        url: starts with http, https or file.
        local_filename: target path; removed again if the download fails.
        chunk_size: bytes; None uses the default.
        largest: size limit in bytes.

    Returns:
        The path of the file.

    Raises:
        UsageError: the URL is invalid or cannot be opened.
        DataError: the connection was lost during the download, or the file is too large.
    """
    if _split(url).scheme not in _SCHEMES:
        raise UsageError(f"{url!r} is not a URL that begins with http://, https:// or file://")
    logger.info("Downloading %s", url)
    path = os.fspath(local_filename)
    try:
        with _opened(url) as source, open(path, "wb") as target:
            _copy(source, target, chunk_size or DEFAULT_CHUNK_SIZE, largest)
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
        opener = urllib.request.build_opener(_NoDowngrade)
        return opener.open(urllib.request.Request(url, headers=_HEADERS), timeout=_TIMEOUT)
    except (OSError, ValueError, http.client.HTTPException) as err:
        raise UsageError(
            f"{url} could not be opened ({_reason(err)}); check the URL and the connection, or download the file in "
            f"another way and use nnUNetv2_install_pretrained_model_from_zip"
        ) from err


def _copy(source: IO[bytes], target: IO[bytes], chunk_size: int, largest: int | None) -> None:
    announced = source.headers.get("Content-Length")
    total = int(announced) if announced and announced.isdecimal() else None
    _require_size(total or 0, largest)
    received = 0
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as progress:
        while chunk := source.read(chunk_size):
            received += len(chunk)
            _require_size(received, largest)
            target.write(chunk)
            progress.update(len(chunk))
    if total is not None and received != total:
        raise http.client.IncompleteRead(b"", total - received)


def _require_size(size: int, largest: int | None) -> None:
    if largest is not None and size > largest:
        raise DataError(
            f"The file has at least {size / 10**9:.1f} GB, and {largest / 10**9:.1f} GB are allowed (--max_gb, or the "
            f"free space in nnUNet_results). Nothing was installed"
        )


def _reason(err: BaseException) -> str:
    if isinstance(err, http.client.IncompleteRead):
        return f"{err.expected} bytes are missing"
    reason = (
        err.reason if isinstance(err, urllib.error.URLError) and not isinstance(err, urllib.error.HTTPError) else err
    )
    return " ".join(str(reason).split()) or type(err).__name__
