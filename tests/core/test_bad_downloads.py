"""A server that lies: the download ends, with a sentence, and neither a wrong file nor a full disk is left."""

import contextlib
import gzip
import hashlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmark.core import download as fetch
from benchmark.core.download import download
from benchmark.core.errors import UserError

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
PUBLISHED = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": SIZE}
ENOUGH = 8 << 20  # what a server without end sends, to spare the disk of whoever runs these tests
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
PARTIAL = b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n"
Answer = bytes | Iterator[bytes]


def length(size: int | str) -> bytes:
    return f"Content-Length: {size}\r\n".encode()


def endless(head: bytes, chunked: bool = False) -> Iterator[bytes]:
    block = b"x" * (1 << 16)
    yield head
    for _ in range(ENOUGH >> 16):
        yield b"10000\r\n" + block + b"\r\n" if chunked else block


def trickle(head: bytes) -> Iterator[bytes]:
    yield head
    pause = threading.Event()
    while not pause.wait(0.01):
        yield b"x"


def moved(to: str) -> Callable[[], Answer]:
    return lambda: b"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: %s\r\n\r\n" % to.encode("latin-1")


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FILE = HEAD + length(SIZE)
LIES: dict[str, tuple[Callable[[], Answer], dict]] = {
    "more than published, without a length": (lambda: endless(HEAD + b"\r\n"), PUBLISHED),
    "more than published, in chunks": (lambda: endless(CHUNKED, chunked=True), PUBLISHED),
    "more than published, announced": (lambda: endless(HEAD + length(ENOUGH) + b"\r\n"), PUBLISHED),
    "an announced petabyte": (lambda: endless(HEAD + length(10**15) + b"\r\n"), {"at_most": SIZE}),
    "no end and no published size": (lambda: endless(HEAD + b"\r\n"), {"at_most": SIZE}),
    "no end of chunks and no published size": (lambda: endless(CHUNKED, chunked=True), {"at_most": SIZE}),
    "a length that is too short": (lambda: HEAD + length(10) + b"\r\n" + CONTENT, PUBLISHED),
    "a length that is too long": (lambda: HEAD + length(SIZE + 10) + b"\r\n" + CONTENT, {}),
    "a length of 5000 digits": (lambda: HEAD + length("9" * 5000) + b"\r\n" + CONTENT[:-1], PUBLISHED),
    "a negative length": (lambda: HEAD + length(-1) + b"\r\n" + CONTENT[:-1], PUBLISHED),
    "a length that is no number": (lambda: HEAD + length("many") + b"\r\n" + CONTENT[:-1], PUBLISHED),
    "another file of the same size": (lambda: FILE + b"\r\n" + CONTENT[::-1], PUBLISHED),
    "an empty file": (lambda: HEAD + length(0) + b"\r\n", {}),
    "an empty file without a length": (lambda: HEAD + b"\r\n", {}),
    "no content": (lambda: b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", {}),
    "reset content": (lambda: b"HTTP/1.1 205 Reset Content\r\nConnection: close\r\n\r\n", {}),
    "a part that nobody asked for": (
        lambda: PARTIAL + length(100) + b"Content-Range: bytes 0-99/10240\r\n\r\n" + CONTENT[:100], {}
    ),
    "a part without its place": (lambda: PARTIAL + length(100) + b"\r\n" + CONTENT[:100], {}),
    "a page called an archive": (lambda: FILE + b"\r\n<!-- v2 --><!DOCTYPE html><html>" + b" " * SIZE, {}),
    "a page in single bytes": (
        lambda: itertools.chain([HEAD + b"\r\n"], (b"%c" % byte for byte in b"<html><body>Sign in</body></html>")), {}
    ),
    "a redirect to a file": (moved("file:///etc/passwd"), {}),
    "a redirect to ftp": (moved("ftp://127.0.0.1:1/data.tgz"), {}),
    "a redirect to data": (moved("data:text/plain,hello"), {}),
    "a redirect to a broken address": (moved("http://[::1/data.tgz"), {}),
    "a redirect to a broken port": (moved("http://127.0.0.1:port/data.tgz"), {}),
    "a redirect to no host": (moved("http:///data.tgz"), {}),
    "a redirect to a name that is too long": (moved("http://" + "a" * 300 + ".example/data.tgz"), {}),
    "a redirect without an address": (moved(""), {}),
    "redirects in a circle": (moved("/data.tgz"), {}),
    "an encoding that was not asked for": (
        lambda: HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(CONTENT), {"name": "data.json"}
    ),
    "an unknown encoding": (lambda: HEAD + b"Content-Encoding: br\r\n\r\n" + CONTENT, {}),
    "a line of headers without end": (lambda: endless(HEAD + b"X: "), PUBLISHED),
    "headers without end": (lambda: HEAD + b"X: 1\r\n" * 5000 + b"\r\n", PUBLISHED),
    "nothing": (lambda: b"", PUBLISHED),
    "noise": (lambda: b"\xff\xfe\0\x01" * 100, PUBLISHED),
    "a status that is no number": (lambda: b"HTTP/1.1 OK\r\n\r\n", PUBLISHED),
    "an unknown status": (lambda: b"HTTP/1.1 999 \x1b[2Jno\r\nConnection: close\r\n\r\n", PUBLISHED),
    "a refusal with an escape sequence": (lambda: b"HTTP/1.1 403 \x1b[2J" + b"no" * 5000 + b"\r\n\r\n", PUBLISHED),
    "a chunk of no size": (lambda: CHUNKED + b"zz\r\n" + CONTENT, PUBLISHED),
    "a chunk of negative size": (lambda: endless(CHUNKED + b"-5\r\n"), PUBLISHED),
    "a chunk of exabytes": (lambda: endless(CHUNKED + b"f" * 15 + b"\r\n"), PUBLISHED),
    "chunks that break off": (lambda: CHUNKED + b"2800\r\n" + CONTENT[:5000], {}),
    "single bytes": (lambda: trickle(FILE + b"\r\n"), PUBLISHED),
}  # fmt: skip
RESUMED: dict[str, tuple[Callable[[], Answer], dict]] = {
    "the rest without end": (lambda: endless(PARTIAL + b"Content-Range: bytes 1000-10239/10240\r\n\r\n"), PUBLISHED),
    "the rest of a larger file": (
        lambda: PARTIAL + length(99_000) + b"Content-Range: bytes 1000-99999/100000\r\n\r\n" + b"x" * 99_000, PUBLISHED
    ),
    "another range": (
        lambda: PARTIAL + length(100) + b"Content-Range: bytes 5000-5099/10240\r\n\r\n" + CONTENT[5000:5100], {}
    ),
    "the first range": (
        lambda: PARTIAL + length(100) + b"Content-Range: bytes 0-99/10240\r\n\r\n" + CONTENT[:100], {}
    ),
    "a range in words": (lambda: PARTIAL + length(100) + b"Content-Range: the rest\r\n\r\n" + CONTENT[:100], {}),
    "no range": (lambda: PARTIAL + length(100) + b"\r\n" + CONTENT[:100], {}),
    "the end, before the end": (
        lambda: PARTIAL + length(100) + b"Content-Range: bytes 1000-1099/10240\r\n\r\n" + CONTENT[1000:1050], {}
    ),
    "nothing of the kind": (lambda: b"HTTP/1.1 416 No\r\nConnection: close\r\n\r\n", PUBLISHED),
    "a page": (lambda: PARTIAL + b"Content-Range: bytes 1000-10239/10240\r\nContent-Type: text/html\r\n\r\n<p>", {}),
}  # fmt: skip


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Answer]], str]]:
    """Serve the same answer to every request: `serve(answer)` returns the address of the server."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.05, raising=False)
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def answer_all(answer: Callable[[], Answer]) -> None:
        while not stop.is_set():
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.recv(1 << 16)
                reply = answer()
                for block in [reply] if isinstance(reply, bytes) else reply:
                    client.sendall(block)
                    if stop.is_set():
                        break

    def start(answer: Callable[[], Answer]) -> str:
        threads.append(threading.Thread(target=answer_all, args=(answer,)))
        threads[-1].start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/data.tgz"

    yield start
    stop.set()
    with socket.create_connection(server.getsockname()[:2]) as last:  # wakes the thread up
        last.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for thread in threads:
        thread.join()
    server.close()


def refused(address: str, folder: Path, published: dict) -> None:
    """Check that nothing under the final name is left, and at most what was published under any other name."""
    path = folder / published.get("name", "data.tgz")
    with pytest.raises(UserError, match=r"(?s)data\.(tgz|json).*download it by hand") as caught:
        download(address, path, **{key: value for key, value in published.items() if key != "name"})
    assert not path.exists()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2 * SIZE
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 1500


@pytest.mark.bad_input("download", "wrong answers of a server")
@pytest.mark.parametrize(("answer", "published"), LIES.values(), ids=LIES)
def test_a_server_that_lies_is_found_out(
    tmp_path: Path, serve: Callable[..., str], answer: Callable[[], Answer], published: dict
) -> None:
    refused(serve(answer), tmp_path, published)


@pytest.mark.bad_input("download", "wrong answers of a server")
@pytest.mark.parametrize(("answer", "published"), RESUMED.values(), ids=RESUMED)
def test_a_server_that_lies_about_the_rest_is_found_out(
    tmp_path: Path, serve: Callable[..., str], answer: Callable[[], Answer], published: dict
) -> None:
    (tmp_path / "data.tgz.part").write_bytes(CONTENT[:1000])
    refused(serve(answer), tmp_path, published)


def test_a_file_that_a_server_calls_compressed_since_it_is_an_archive_is_kept_as_it_is(
    tmp_path: Path, serve: Callable[..., str]
) -> None:
    content = gzip.compress(CONTENT)
    address = serve(lambda: HEAD + b"Content-Encoding: x-gzip\r\n\r\n" + content)
    assert download(address, tmp_path / "data.tgz").read_bytes() == content


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    handler, request = fetch._Redirects(), fetch.urllib.request.Request("https://a.example/x")
    with pytest.raises(ValueError, match="redirects to http://a"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://a.example/x")
    assert handler.redirect_request(request, None, 302, "Found", {}, "https://b.example/x")


def test_a_named_pipe_or_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.tgz").mkdir()
    with pytest.raises(UserError, match=r"data\.tgz is a folder, not a file"):
        download("http://127.0.0.1:1/data.tgz", tmp_path / "data.tgz")
