"""Resolves a path or URL to a local file."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlparse

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.errors import DataError, UsageError

logger = logging.getLogger(__name__)

_TIMEOUT = 10  # seconds without an answer
_CHUNK = 1 << 20  # bytes
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")
_LOCAL_FILE = "give a local file instead: weights=PATH (model.pretrained_weights=PATH in a configuration)"
_FORM = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads"


def local_copy(path_or_url: str | os.PathLike, *, check_hash: bool = False) -> Path:
    """Returns the path of a local file; downloads a URL unless it is in torch.hub's cache.

    Args:
        path_or_url: a path, `~` allowed, or a URL that starts with https:// or file://.
        check_hash: verify the file against the SHA-256 prefix at the end of its name, as in `-08c60483.pth`.

    Raises:
        UsageError: the URL scheme is not supported, the download fails, or the name has no hash to check.
        DataError: the hash does not match.
    """
    text = os.fspath(path_or_url)
    scheme = text.partition("://")[0] if "://" in text else None
    if scheme is None:
        path = Path(text).expanduser()
    elif scheme == "file":
        path = Path(urllib.request.url2pathname(urlparse(text).path))
    elif scheme == "https":
        return _cached(text, check_hash=check_hash)
    else:
        raise UsageError(f"Weights are read from https:// and file:// and from local files, not from {text}")
    if check_hash and path.is_file():
        _require_hash(path, path.name)
    return path


def _cached(url: str, *, check_hash: bool) -> Path:
    """Returns the file of a URL in torch.hub's cache; downloads are atomic."""
    import torch

    name = os.path.basename(unquote(urlparse(url).path))
    if not name:
        raise UsageError(f"The URL {url} names no file; {_LOCAL_FILE}")
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        if check_hash:
            _require_hash(path, name)
        return path
    shown = url.partition("?")[0]  # hides the query, which may be a signature that grants access
    logger.info("Downloading %s to %s", shown, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_when_complete(path) as temporary:
            _download(url, temporary)
            if check_hash:
                _require_hash(temporary, name)
    except HTTPError as err:
        hint = f"; access to the released weights is granted at {_FORM}" if err.code in (401, 403) else ""
        raise UsageError(f"{shown} was refused ({err.code} {err.reason}){hint}; {_LOCAL_FILE}") from err
    except (OSError, HTTPException) as err:  # no network, no answer, no space
        reason = getattr(err, "reason", None) or str(err) or type(err).__name__
        raise UsageError(f"{shown} could not be downloaded ({reason}); {_LOCAL_FILE}") from err
    return path


def _download(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "dinov3"})  # some servers reject Python's default
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, open(target, "wb") as file:
        promised = _promised_size(response)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
        if promised is not None and file.tell() != promised:
            raise OSError(f"the connection ended after {file.tell()} of {promised} bytes")


def _promised_size(response: HTTPResponse) -> int | None:
    if "text/html" in (response.headers.get("Content-Type") or ""):
        raise OSError("the answer is a web page, probably to log in")
    length = response.headers.get("Content-Length")
    return int(length) if length else None


def _require_hash(path: Path, name: str) -> None:
    match = _HASH_IN_NAME.search(name)
    if match is None:
        raise UsageError(
            f"check_hash needs a name that ends in a hash, such as weights-08c60483.pth, and this is {name}"
        )
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if not digest.hexdigest().startswith(match[1]):
        raise DataError(
            f"{name} is not the file that its name promises: its SHA-256 starts with "
            f"{digest.hexdigest()[: len(match[1])]}; remove it and download it again"
        )
