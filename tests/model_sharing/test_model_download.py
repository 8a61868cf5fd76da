"""Downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.model_sharing import model_download
from nnunetv2.model_sharing.entry_points import download_by_url
from nnunetv2.model_sharing.model_download import download_file
from tests.model_sharing.test_model_import import CHECKPOINT, UPSTREAM


class Handler(BaseHTTPRequestHandler):
    """Serves upstream's archive whole, without its length, or cut off."""

    def __init__(self, agents: list[str], *args: object) -> None:
        self.agents = agents
        super().__init__(*args)

    def do_GET(self) -> None:  # noqa: N802 - the name that the server calls
        self.agents.append(self.headers["User-Agent"])
        data = UPSTREAM.read_bytes()
        known = {"/model.zip": len(data), "/broken.zip": len(data) + 1000, "/unsized.zip": None}
        if self.path == "/moved.zip":
            self.send_response(302)
            self.send_header("Location", "/model.zip")
            self.end_headers()
            return
        if self.path not in known:
            self.send_error(404)
            return
        self.send_response(200)
        if known[self.path] is not None:
            self.send_header("Content-Length", str(known[self.path]))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def agents() -> list[str]:
    return []


@pytest.fixture
def server(agents: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, agents))
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize("name", ["model.zip", "unsized.zip", "moved.zip"])
def test_a_model_is_downloaded_and_installed(name, server, agents, nnunet_folders):
    root = nnunet_folders["nnUNet_results"]
    assert download_by_url([f"{server}/{name}"]) == 0
    assert (root / CHECKPOINT).is_file()
    assert [path.name for path in root.iterdir()] == [Path(CHECKPOINT).parts[0]]
    assert set(agents) == {"nnunetv2"}


def test_a_file_on_this_machine_has_a_url_too(nnunet_folders, caplog):
    assert download_by_url([UPSTREAM.as_uri()]) == 0
    assert "as the licence of its training data allows" in caplog.text
    assert (nnunet_folders["nnUNet_results"] / CHECKPOINT).is_file()


def test_a_checksum_decides_whether_the_file_is_installed(server, nnunet_folders, capsys):
    root, digest = nnunet_folders["nnUNet_results"], hashlib.sha256(UPSTREAM.read_bytes()).hexdigest()
    assert download_by_url([f"{server}/model.zip", "--sha256", "0" * 64]) == 3
    assert f"its SHA-256 is {digest}, and not 0000" in capsys.readouterr().err
    assert not list(root.iterdir())
    assert download_by_url([f"{server}/model.zip", "--sha256", digest.upper()]) == 0
    assert (root / CHECKPOINT).is_file()


def test_what_is_no_checksum_is_refused_before_the_download(server, agents, nnunet_folders, capsys):
    assert download_by_url([f"{server}/model.zip", "--sha256", "0" * 63]) == 2
    assert "is no SHA-256, which has 64 hexadecimal digits" in capsys.readouterr().err
    assert not agents


def test_download_file_returns_the_path(server, tmp_path):
    target = tmp_path / "model.zip"
    assert download_file(f"{server}/model.zip", str(target), chunk_size=100) == str(target)
    assert target.read_bytes() == UPSTREAM.read_bytes()


def test_a_download_that_breaks_off_is_removed(server, tmp_path):
    with pytest.raises(DataError, match=r"broken.zip broke off \(1000 bytes are missing\)"):
        download_file(f"{server}/broken.zip", tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{server}/nowhere.zip", r"nowhere.zip could not be opened \(HTTP Error 404: Not Found\)"),
        ("http://127.0.0.1:1/model.zip", r"could not be opened \(.*refused\)"),
        ("file:///nowhere/model.zip", r"could not be opened \(.*No such file"),
        ("http://", r"could not be opened \(no host given\)"),
        ("http://127.0.0.1:port/model.zip", r"could not be opened"),
        ("ftp://127.0.0.1/model.zip", r"'ftp://127.0.0.1/model.zip' is not a URL that begins with http://"),
        ("model.zip", r"'model.zip' is not a URL"),
        ("http://[::1/model.zip", r"is not a URL \(Invalid IPv6 URL\)"),
    ],
)
def test_urls_that_lead_nowhere_are_one_line(url, message, server, nnunet_folders, capsys, caplog):
    url = url.format(server=server)
    with pytest.raises(UsageError, match=message):
        download_file(url, nnunet_folders["nnUNet_results"] / "model.zip")
    capsys.readouterr()
    assert download_by_url([url]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert "licence" not in caplog.text  # of a model that nobody has got
    assert not list(nnunet_folders["nnUNet_results"].iterdir())


def test_http_to_other_machines_needs_a_checksum_or_a_flag(nnunet_folders, capsys, monkeypatch, caplog):
    opened = []

    def refuse(self: object, request: urllib.request.Request, timeout: float) -> None:
        opened.append(request.full_url)
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refuse)
    url = "http://example.org/model.zip"
    assert download_by_url([url]) == 2
    assert "is not encrypted, so the file could be replaced" in capsys.readouterr().err
    assert not opened
    for words in (["--allow_http"], ["--sha256", "0" * 64]):
        assert download_by_url([url, *words]) == 2
        assert "no network in tests" in capsys.readouterr().err
    assert opened == [url, url]


def test_http_on_this_machine_is_a_warning(server, nnunet_folders, caplog):
    assert download_by_url([f"{server}/model.zip"]) == 0
    assert "is not encrypted (http)" in caplog.text


def test_redirects_keep_the_encryption():
    request = urllib.request.Request("https://example.org/model.zip")
    handler = model_download._NoDowngrade()
    assert handler.redirect_request(request, None, 302, "", {}, "https://elsewhere.org/x").host == "elsewhere.org"
    for target in ("http://elsewhere.org/x", "ftp://elsewhere.org/x"):
        with pytest.raises(urllib.error.URLError, match="which is not encrypted"):
            handler.redirect_request(request, None, 302, "", {}, target)


@pytest.mark.parametrize("name", ["model.zip", "unsized.zip"])
def test_sizes_are_limited_before_and_during_the_download(name, server, nnunet_folders, capsys):
    assert UPSTREAM.stat().st_size > 1000
    assert download_by_url([f"{server}/{name}", "--max_gb", "1e-6"]) == 3
    assert "0.0 GB are allowed (--max_gb" in capsys.readouterr().err
    assert not list(nnunet_folders["nnUNet_results"].iterdir())
    assert download_by_url([f"{server}/{name}", "--max_gb", "0"]) == 2


def test_results_must_be_set_before_anything_is_downloaded(server, agents, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_results", raising=False)
    assert download_by_url([f"{server}/model.zip"]) == 2
    assert "nnUNet_results is not set" in capsys.readouterr().err
    assert not agents
