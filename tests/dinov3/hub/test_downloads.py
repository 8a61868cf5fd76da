"""Weights from URLs, without a network: the connection is a stand-in."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
import torch

from dinov3.hub.downloads import local_copy
from dinov3.utils.errors import DataError, UsageError

CONTENT = b"what a file of weights holds"
HASH = hashlib.sha256(CONTENT).hexdigest()[:8]
NAME = f"vit-{HASH}.pth"


class Answer(io.BytesIO):
    """What `urlopen` returns."""

    def __init__(self, content: bytes = CONTENT, **headers: str) -> None:
        super().__init__(content)
        self.headers = Message()
        for name, value in headers.items():
            self.headers[name.replace("_", "-")] = value


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def serve(monkeypatch):
    """Answers the next requests; returns the list of URLs that were asked for."""

    def start(answer: Answer | Exception) -> list[str]:
        asked: list[str] = []

        def urlopen(request: urllib.request.Request, timeout: float) -> Answer:
            asked.append(request.full_url)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return start


def test_a_download_is_kept_and_not_repeated(cache, serve):
    asked = serve(Answer(Content_Length=str(len(CONTENT))))
    url = f"https://host/dinov3/{NAME}?Signature=secret"
    assert local_copy(url) == cache / NAME
    assert local_copy(url).read_bytes() == CONTENT
    assert asked == [url]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer(Content_Length="1000"), UsageError, "connection ended after 28 of 1000 bytes"),
        (Answer(Content_Type="text/html; charset=utf-8"), UsageError, "web page"),
        (URLError("no route"), UsageError, r"could not be downloaded \(no route\); give a local file.*weights=PATH"),
        (TimeoutError("timed out"), UsageError, "timed out"),
        (HTTPError("", 403, "Forbidden", Message(), None), UsageError, "403 Forbidden.*access.*is granted at https"),
        (HTTPError("", 404, "Not Found", Message(), None), UsageError, "404 Not Found.*weights=PATH"),
    ],
)
def test_a_failed_download_says_what_to_do_and_leaves_nothing(cache, serve, answer, error, message):
    serve(answer)
    with pytest.raises(error, match=message) as caught:
        local_copy(f"https://host/{NAME}?Signature=secret")
    assert "secret" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_the_hash_of_a_download_is_checked_before_it_is_kept(cache, serve):
    serve(Answer())
    assert local_copy(f"https://host/{NAME}", check_hash=True).is_file()
    serve(Answer(b"something else"))
    with pytest.raises(DataError, match=r"vit-12345678.pth is not the file.*SHA-256 starts with"):
        local_copy("https://host/vit-12345678.pth", check_hash=True)
    assert [path.name for path in cache.iterdir()] == [NAME]


@pytest.mark.parametrize("as_url", [False, True])
def test_the_hash_of_a_local_file_is_checked(tmp_path, as_url):
    def given(path: Path) -> str:
        return path.as_uri() if as_url else str(path)

    right, wrong, without = (tmp_path / name for name in (NAME, "vit-00000000.pth", "vit.pth"))
    for path in (right, wrong, without):
        path.write_bytes(CONTENT)
    assert local_copy(given(right), check_hash=True) == right
    assert local_copy(given(wrong)) == wrong
    with pytest.raises(DataError, match="vit-00000000.pth is not the file that its name promises"):
        local_copy(given(wrong), check_hash=True)
    with pytest.raises(UsageError, match="check_hash needs a name that ends in a hash"):
        local_copy(given(without), check_hash=True)


def test_a_damaged_file_in_the_cache_is_found(cache, serve):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(b"half")
    with pytest.raises(DataError, match="remove it and download it again"):
        local_copy(f"https://host/{NAME}", check_hash=True)


def test_a_file_url_may_hold_escaped_characters(tmp_path):
    path = tmp_path / "my weights.pth"
    path.touch()
    assert "%20" in path.as_uri()
    assert local_copy(path.as_uri()) == path


@pytest.mark.parametrize("url", ["http://host/w.pth", "ftp://host/w.pth", "s3://bucket/w.pth"])
def test_other_kinds_of_url_are_refused(url):
    with pytest.raises(UsageError, match=r"read from https:// and file://"):
        local_copy(url)


def test_a_url_without_a_file_is_refused(cache):
    with pytest.raises(UsageError, match="names no file"):
        local_copy("https://host/dinov3/")


def test_a_home_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_copy("~/w.pth") == tmp_path / "w.pth"
