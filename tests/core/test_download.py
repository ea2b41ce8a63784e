"""Downloads from a server on this machine that misbehaves as servers do."""

import hashlib
import http.server
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmark.core import download as fetch
from benchmark.core.download import DownloadError, download
from benchmark.core.pulse import heard_by

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """What the handler does next, and what it was asked."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.ranges: list[str | None] = []
        self.break_off_at: list[int] = []  # bytes after which an answer ends, one for each request
        self.ignore_range = False
        self.content = CONTENT


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.0)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            if self.path == "/moved":
                self.answer(302, {"Location": "/login"})
            elif self.path in ("/login", "/page.zip"):
                kind = "text/html" if self.path == "/login" else "application/zip"
                self.answer(200, {"Content-Type": kind}, b"\n<!DOCTYPE html><html>Sign in</html>")
            elif self.path in ("/404", "/500"):
                self.answer(int(self.path[1:]), {})
            else:
                self.send_content()

        def send_content(self) -> None:
            content, start = state.content, 0
            if state.ranges[-1] and not state.ignore_range:
                start = int(re.fullmatch(r"bytes=(\d+)-", state.ranges[-1])[1])
            if start > len(content):
                self.answer(416, {})
                return
            length = {"Content-Length": str(len(content) - start)}
            place = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            stop = state.break_off_at.pop(0) if state.break_off_at else len(content)
            self.answer(206 if start else 200, length | place, content[start:stop])

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        state = Server(f"http://127.0.0.1:{http_server.server_port}")
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http_server.shutdown()
        thread.join()


def test_a_file_arrives_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    path, beats = tmp_path / "new" / "data.tgz", list[int]()
    with heard_by(lambda: beats.append(1)):
        for _ in range(2):
            download(f"{server.address}/data.tgz", path, sha256=SHA256, md5=MD5, size=len(CONTENT))
    assert path.read_bytes() == CONTENT and beats
    assert server.ranges == [None]
    assert os.listdir(path.parent) == ["data.tgz"]


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_off_at = [30_000, 70_000]
    path = download(f"{server.address}/data.tgz", tmp_path / "data.tgz", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=30000-", "bytes=70000-"]


def test_what_came_is_kept_when_it_breaks_off_every_time(server: Server, tmp_path: Path) -> None:
    server.break_off_at = [10_000, 20_000, 30_000]
    with pytest.raises(DownloadError, match=r"was interrupted.* 30,000 bytes are kept") as caught:
        download(f"{server.address}/data.tgz", tmp_path / "data.tgz", sha256=SHA256)
    assert f"put it at {tmp_path / 'data.tgz'}" in str(caught.value)
    assert not (tmp_path / "data.tgz").exists()
    download(f"{server.address}/data.tgz", tmp_path / "data.tgz", sha256=SHA256)
    assert server.ranges[-1] == "bytes=30000-"


def test_a_server_that_cannot_resume_sends_the_whole_file(server: Server, tmp_path: Path) -> None:
    server.ignore_range, server.break_off_at = True, [30_000]
    path = download(f"{server.address}/data.tgz", tmp_path / "data.tgz", sha256=SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"of another file", CONTENT + b"too long"])
def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "data.tgz.part").write_bytes(left)
    path = download(f"{server.address}/data.tgz", tmp_path / "data.tgz", sha256=SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("published", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_a_wrong_checksum_is_refused_and_what_came_is_kept(
    server: Server, tmp_path: Path, published: dict[str, str]
) -> None:
    with pytest.raises(DownloadError, match=rf"its {next(iter(published))} is \w+, expected 0+\. The download is kept"):
        download(f"{server.address}/data.tgz", tmp_path / "data.tgz", **published)
    assert (tmp_path / "data.tgz.wrong").read_bytes() == CONTENT
    assert not (tmp_path / "data.tgz").exists()


def test_a_file_put_there_by_hand_is_checked_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.tgz").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="is not the published file: it has 14 bytes, expected 102,400"):
        download(f"{server.address}/data.tgz", tmp_path / "data.tgz", size=len(CONTENT))
    assert server.ranges == []


def test_another_size_is_refused_before_the_transfer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"it has 102,400 bytes, expected 5\."):
        download(f"{server.address}/data.tgz", tmp_path / "data.tgz", size=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("page", ["/moved", "/page.zip"])
def test_a_web_page_in_place_of_an_archive_is_refused(server: Server, tmp_path: Path, page: str) -> None:
    with pytest.raises(
        DownloadError, match=r"sends a web page instead of data\.tgz \(final address: http.*/(login|page)"
    ):
        download(server.address + page, tmp_path / "data.tgz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("address", "requests", "said"), [("/404", 1, "answers 404"), ("/500", 3, "500.*, 3 times")])
def test_a_refusal_is_told_and_only_trouble_of_the_server_is_tried_again(
    server: Server, tmp_path: Path, address: str, requests: int, said: str
) -> None:
    with pytest.raises(DownloadError, match=said):
        download(server.address + address, tmp_path / "data.tgz")
    assert len(server.ranges) == requests


def test_an_unreachable_host_is_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"Cannot download http://127\.0\.0\.1:1/data\.tgz: .*refused"):
        download("http://127.0.0.1:1/data.tgz", tmp_path / "data.tgz")


def test_other_addresses_are_not_opened(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is not an http or https address"):
        download("file:///etc/passwd", tmp_path / "data.tgz")


def test_plain_output_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PLAIN_SECONDS", 0.0)
    say: Callable[[int], None]
    with fetch.progress("data.tgz", 4_000_000, 1_000_000) as say:
        say(500_000)
    assert capsys.readouterr().out == "  data.tgz: 1.5 of 4.0 MB\n"
