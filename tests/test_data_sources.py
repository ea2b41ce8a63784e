"""make data with sources that fail as servers do, and with folders and disks that cannot be used."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import os
import re
import shutil
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from benchmark import data as story
from benchmark.core import download as fetch
from benchmark.core.errors import message_for_user
from benchmark.core.wording import human_size
from benchmark.study.study import Study
from tests.cases import slow_except
from tests.datasets import trees

LIMITS = {"members": 100, "bytes": 100_000}


def packed(tree: Path, keep: Callable[[Path], bool] = lambda path: True) -> bytes:
    """An archive of what is in a tree."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for path in sorted(path for path in tree.rglob("*") if path.is_file() and keep(path)):
            archive.add(path, path.relative_to(tree))
    return held.getvalue()


@dataclass
class Site:
    """A server, the files that it serves, and the requests that it got."""

    address: str
    files: dict[str, bytes]
    asked: list[str]

    def source(self, path: str, file: str = "CUB_200_2011.tgz", **fields: object) -> dict[str, Any]:
        """A source whose address is a path of this server, or a whole address."""
        url = path if ":" in path else f"{self.address}/{path}"
        return {"url": url, "file": file, "unpack": LIMITS} | fields

    @property
    def published(self) -> dict[str, object]:
        """Size and checksum of the genuine archive."""
        good = self.files["good.tgz"]
        return {"bytes": len(good), "sha256": hashlib.sha256(good).hexdigest()}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each path in its own way; `/good.tgz` and other names of files send the file."""

    site: Site
    address: str

    def do_GET(self) -> None:
        self.site.asked.append(self.path)
        name = self.path.strip("/").partition("?")[0]
        good = self.site.files["good.tgz"]
        if name.isdecimal():
            self.answer(int(name))
        elif name in REDIRECTS:
            self.answer(302, Location=REDIRECTS[name].format(here=self.site.address))
        elif name in BODIES:
            body, headers = BODIES[name]
            self.answer(200, body(good), **headers)
        elif name == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif name == "hangs":
            threading.Event().wait(0.3)
        elif name == "garbage":
            self.wfile.write(b"\x00\x01 not http\r\n\r\n")
        elif name == "endless":
            self.answer(200, **{"Content-Type": "application/gzip"}, length=False)
            with contextlib.suppress(OSError):
                for _ in range(2000):
                    self.wfile.write(bytes(10_000))
        elif name in self.site.files:
            self.send_file(self.site.files[name])
        else:
            self.answer(404)

    def send_file(self, content: bytes) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start >= len(content):
            self.answer(416)
        elif start:
            self.answer(206, content[start:], **{"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
        else:
            self.answer(200, content)

    def answer(self, status: int, body: bytes = b"", length: bool = True, **headers: str) -> None:
        self.send_response_only(status)
        for key, value in (({"Content-Length": str(len(body))} if length else {}) | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


REDIRECTS = {
    "moved-to-login": "{here}/page", "moved-in-a-circle": "{here}/moved-in-a-circle", "moved-to-file": "file:///etc/passwd",
    "moved-to-ftp": "ftp://127.0.0.1:1/x", "moved-to-nonsense": "http://[::1", "moved-to-gone": "{here}/410",
    "moved-to-nothing": "",
}  # fmt: skip
HTML = {"Content-Type": "text/html"}
BODIES: dict[str, tuple[Callable[[bytes], bytes], dict[str, str]]] = {
    "page": (lambda _: b"<!doctype html><title>Sign in</title>", HTML),
    "page-as-archive": (lambda _: b"\n<html>Quota exceeded</html>", {"Content-Type": "application/gzip"}),
    "json-error": (lambda _: b'{"code": 403, "message": "Unauthorized"}', {"Content-Type": "application/json"}),
    "text-error": (lambda _: b"Service unavailable", {"Content-Type": "text/plain"}),
    "empty": (lambda _: b"", {}),
    "other-bytes": (lambda good: bytes(len(good)), {}),
    "cut-short": (lambda good: good[: len(good) // 2], {}),
    "too-long": (lambda good: good + b"more", {}),
    "says-longer": (lambda good: good[:100], {"Content-Length": "1000000"}),
    "negative-length": (lambda good: good[:100], {"Content-Length": "-1"}),
    "no-number-as-length": (lambda good: good[:100], {"Content-Length": "many"}),
    "gzip-encoded": (gzip.compress, {"Content-Encoding": "gzip"}),
    "brotli-encoded": (lambda good: good[::-1], {"Content-Encoding": "br"}),
    "broken-chunks": (lambda _: b"zz\r\nabc", {"Transfer-Encoding": "chunked"}),
}
STATUSES = ("400", "401", "403", "404", "410", "418", "429", "451", "500", "502", "503", "204")
ELSEWHERE = {
    "closed-port": "http://127.0.0.1:1/x.tgz", "another-protocol": "ftp://127.0.0.1/x.tgz", "a-local-file": "file:///etc/passwd",
    "no-host": "http:///x.tgz", "bad-ipv6": "http://[::1/x.tgz", "port-too-large": "http://127.0.0.1:99999/x.tgz",
}  # fmt: skip
BAD = (*STATUSES, *REDIRECTS, *BODIES, "reset", "hangs", "garbage", "endless", *ELSEWHERE, "https-certificate")
# How a source fails is told apart in the tests of one source; of several, the fast tests try a third of the ways.
AMONG_OTHERS = [pytest.param(bad, marks=pytest.mark.slow if number % 9 else ()) for number, bad in enumerate(BAD)]


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Archives of the whole data set, of a part of it, and of something else."""
    tree = trees.cub(tmp_path_factory.mktemp("cub"))
    sop = trees.sop(tmp_path_factory.mktemp("sop"))
    part = packed(tree, lambda path: path.name != "image_class_labels.txt")
    return {"good.tgz": packed(tree), "part.tgz": part, "other.tgz": packed(sop)}


@pytest.fixture(scope="module")
def server() -> Iterator[type[Handler]]:
    """A running server, as the class of its handler, which has its address."""
    handler = type("Own", (Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        handler.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield handler
        running.shutdown()
        thread.join()


@pytest.fixture
def site(server: type[Handler], genuine: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.1)
    server.site = Site(server.address, dict(genuine), [])
    return server.site


@pytest.fixture(scope="module")
def studies(compose_study_in: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Study]:
    folder = tmp_path_factory.mktemp("results")
    composed = {name: compose_study_in(folder, f"dataset={name}") for name in ("cub", "cars196")}
    return lambda name: composed[name]


@dataclass(frozen=True)
class Ended:
    """What a run of make data printed, and the message with which it ended; empty if it succeeded."""

    out: str
    refusal: str


Run = Callable[..., Ended]


@pytest.fixture
def make_data(studies: Callable[[str], Study], no_fsync: None) -> Run:
    """Run make data on a tiny copy: `make_data(root, source, ...)`."""

    def ran(root: object, *sources: dict[str, Any], name: str = "cub", named: bool = True) -> Ended:
        study = studies(name)
        module = study.config.dataset.module | {"root": root, "expected": None}
        dataset = replace(study.config.dataset, sources=list(sources), module=module)
        study = replace(study, config=replace(study.config, dataset=dataset, display="quiet"))
        out, refusal = io.StringIO(), ""
        with contextlib.redirect_stdout(out):
            try:
                story.data(study, ["dataset.module.root=x"] * named)
            except Exception as error:
                found = message_for_user(error)
                if found is None:
                    raise
                refusal = found
        return Ended(out.getvalue(), refusal)

    return ran


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "data").mkdir()
    return str(tmp_path / "data")


def bad_source(site: Site, bad: str, **fields: object) -> dict[str, Any]:
    if bad == "https-certificate":
        return site.source(site.address.replace("http:", "https:") + "/good.tgz", **fields)
    return site.source(ELSEWHERE.get(bad, bad), **fields)


def files_below(folder: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*")}


@pytest.mark.bad_input("download", "the only source fails")
@pytest.mark.parametrize("bad", BAD)
def test_a_source_that_fails_is_named_and_nothing_is_taken_for_the_data(
    bad: str, site: Site, make_data: Run, root: str
) -> None:
    ended = make_data(root, bad_source(site, bad, **site.published))
    assert ELSEWHERE.get(bad, bad.partition("-certificate")[0]) in ended.refusal
    assert "download it by hand" in ended.refusal and len(ended.refusal) < 3000
    assert files_below(root) <= {".lock", "CUB_200_2011.tgz.part", "CUB_200_2011.tgz.wrong"}
    assert sum(path.stat().st_size for path in Path(root).iterdir()) < 30_000_000


@pytest.mark.bad_input("download", "the first source fails")
@pytest.mark.parametrize("bad", AMONG_OTHERS)
def test_the_next_source_is_tried_after_one_that_fails(bad: str, site: Site, make_data: Run, root: str) -> None:
    size = site.published["bytes"]
    first = bad_source(site, bad, file="first.tgz", copy="the first", room=30_000, bytes=size)
    ended = make_data(root, first, site.source("good.tgz", copy="the second"))
    assert not ended.refusal, ended.refusal
    assert "10 images" in ended.out and "Trying the next source." in ended.out
    assert files_below(root) >= {"CUB_200_2011/CUB_200_2011/images.txt"} and not Path(root, "first").exists()


@pytest.mark.bad_input("download", "the first address fails")
@pytest.mark.parametrize("bad", AMONG_OTHERS)
def test_the_next_address_of_a_file_is_tried_after_one_that_fails(
    bad: str, site: Site, make_data: Run, root: str
) -> None:
    both = [bad_source(site, bad)["url"], f"{site.address}/good.tgz"]
    ended = make_data(root, site.source("good.tgz", **site.published) | {"url": both})
    assert not ended.refusal, ended.refusal
    assert "10 images" in ended.out and "Trying the next address." in ended.out


@pytest.mark.parametrize(("held", "why"), [("part.tgz", "image_class_labels.txt"), ("other.tgz", "CUB")])
def test_a_file_without_a_checksum_that_holds_something_else_is_set_aside(
    held: str, why: str, site: Site, make_data: Run, root: str
) -> None:
    first = site.source(held, file="first.tgz", copy="a doubtful site")
    ended = make_data(root, first, site.source("good.tgz", copy="the second"))
    assert not ended.refusal, ended.refusal
    assert "What came from a doubtful site is not CUB-200-2011" in ended.out and why in ended.out
    assert Path(root, "first.tgz.refused").read_bytes() == site.files[held] and not Path(root, "first").exists()
    assert not Path(root, "first.tgz").exists()


def test_a_refused_file_is_not_downloaded_again_until_it_is_deleted(site: Site, make_data: Run, root: str) -> None:
    only = site.source("part.tgz")
    first = make_data(root, only)
    again = make_data(root, only)
    assert "is kept as" in first.refusal and "Delete it to try again" in again.refusal
    assert site.asked == ["/part.tgz"]
    Path(root, "CUB_200_2011.tgz.refused").unlink()
    site.files["part.tgz"] = site.files["good.tgz"]
    assert "10 images" in make_data(root, only).out


def test_a_file_with_a_checksum_that_holds_something_else_is_kept_because_it_is_the_published_one(
    site: Site, make_data: Run, root: str
) -> None:
    held = site.files["part.tgz"]
    ended = make_data(root, site.source("part.tgz", sha256=hashlib.sha256(held).hexdigest()))
    assert "image_class_labels.txt" in ended.refusal
    assert Path(root, "CUB_200_2011.tgz").exists() and not list(Path(root).glob("*.refused"))


def test_the_last_message_lists_everything_that_was_tried_and_ends_with_the_advice(
    site: Site, make_data: Run, root: str
) -> None:
    bad = [site.source(path, file=f"{path}.tgz", copy=path) for path in ("404", "page", "part.tgz")]
    ended = make_data(root, *bad)
    lines = [line for line in ended.refusal.splitlines() if line.startswith("- ")]
    assert len(lines) == 3 and "404" in lines[0] and "web page" in lines[1] and "image_class_labels" in lines[2]
    assert ended.refusal.count("download it by hand") == 1
    assert f"{site.address}/404\nand put it at {root}/404.tgz" in ended.refusal
    assert ended.refusal.endswith("make data DATASET=cub ROOT=FOLDER")


def test_what_is_downloaded_is_said_before(site: Site, make_data: Run, root: str) -> None:
    out = make_data(
        root, site.source("good.tgz", copy="a site", bytes=len(site.files["good.tgz"]), room=50_000_000)
    ).out
    said = next(line for line in out.splitlines() if line.startswith("Downloading"))
    for part in (
        "CUB-200-2011",
        root,
        "from a site",
        f"CUB_200_2011.tgz ({human_size(len(site.files['good.tgz']))})",
        "About 50.0 MB of disk",
        "Licence: Non",
    ):
        assert part in said


@pytest.mark.parametrize("by_hand", ["first.tgz", "second.tgz"])
def test_an_archive_that_lies_in_the_folder_is_unpacked_and_nothing_is_downloaded(
    by_hand: str, site: Site, make_data: Run, root: str
) -> None:
    Path(root, by_hand).write_bytes(site.files["good.tgz"])
    sources = [site.source("good.tgz", file=name, copy=name) for name in ("first.tgz", "second.tgz")]
    ended = make_data(root, *sources)
    assert not ended.refusal and "10 images" in ended.out and f"Using {by_hand} in" in ended.out
    assert site.asked == [] and Path(root, by_hand).exists()


def test_a_file_that_has_no_address_is_used_only_if_it_is_there(site: Site, make_data: Run, root: str) -> None:
    only = {"file": "CUB_200_2011.tgz", "unpack": LIMITS, "sha256": site.published["sha256"]}
    assert "CUB_200_2011.tgz is also on" in make_data(root, only).refusal
    Path(root, "CUB_200_2011.tgz").write_bytes(b"another file")
    assert "is not the published file" in make_data(root, only).refusal
    Path(root, "CUB_200_2011.tgz").write_bytes(site.files["good.tgz"])
    assert "10 images" in make_data(root, only).out


def cars(tree: Path) -> list[tuple[str, bytes]]:
    """The files of Cars-196 in the official layout, as they are packed."""
    base = trees.cars_official(tree) / "stanford_cars"
    archives = {"cars_train.tgz": "cars_train", "cars_test.tgz": "cars_test", "car_devkit.tgz": "devkit"}
    found = []
    for name, folder in archives.items():
        found.append((name, packed(base, lambda path, folder=folder: folder in path.parts)))
    return [*found, ("cars_test_annos_withlabels.mat", (base / "cars_test_annos_withlabels.mat").read_bytes())]


def car_folders(tree: Path) -> list[tuple[str, bytes]]:
    return [("stanford-car-dataset-by-classes-folder.zip", packed(trees.cars_folders(tree)))]


def car_ims(tree: Path) -> list[tuple[str, bytes]]:
    return [("CARS196.zip", packed(trees.cars_dml(tree)))]


@pytest.mark.parametrize("copy", slow_except([car_folders], [cars, car_folders, car_ims]))
def test_each_layout_of_cars196_is_found_as_it_is_published(
    copy: Callable[[Path], list[tuple[str, bytes]]], site: Site, make_data: Run, root: str, tmp_path: Path
) -> None:
    """The names are those of conf/sources.yaml, so that each is unpacked where the listing looks for it."""
    files = copy(tmp_path / "tree")
    site.files |= dict(files)
    stated = {source.file: source for source in story.sources.statements().datasets["cars196"].sources}
    limited = [LIMITS if stated[name].unpack else None for name, _ in files]
    sources = [
        site.source(name, file=name) | {"unpack": limits} for (name, _), limits in zip(files, limited, strict=True)
    ]
    ended = make_data(root, *sources, name="cars196")
    assert not ended.refusal, ended.refusal
    assert "10 images" in ended.out and len(site.asked) == len(files)


# -- interruptions ----------------------------------------------------------------------------------------------------

STOPS = (KeyboardInterrupt(), SystemExit(143), OSError(errno.ENOSPC, "No space left on device"), MemoryError())


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: type(stop).__name__)
@pytest.mark.parametrize("step", ["download", "unpack"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_same_command_goes_on_after_an_interruption(
    stop: BaseException, step: str, when: str, site: Site, make_data: Run, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = getattr(story, step)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            done(*args, **kwargs)
        raise stop

    only = site.source("good.tgz", **site.published)
    with monkeypatch.context() as patch:
        patch.setattr(story, step, interrupted)
        with contextlib.suppress(KeyboardInterrupt, SystemExit, MemoryError):
            assert re.search("No space left|Memory ran out", make_data(root, only).refusal)
    assert "10 images" in make_data(root, only).out
    assert site.asked == ["/good.tgz"], "what was complete is not downloaded again"


def test_a_transfer_that_broke_off_goes_on_with_the_same_source(site: Site, make_data: Run, root: str) -> None:
    good = site.files["good.tgz"]
    Path(root, "CUB_200_2011.tgz.part").write_bytes(good[:1000])
    assert "10 images" in make_data(root, site.source("good.tgz")).out
    assert site.asked == ["/good.tgz"] and Path(root, "CUB_200_2011.tgz").read_bytes() == good


def test_a_part_of_one_source_is_not_continued_with_another(site: Site, make_data: Run, root: str) -> None:
    """Without a checksum nobody could tell; so every source has a file name of its own."""
    first, second = (site.source("good.tgz", copy=copy) for copy in ("a", "b"))
    assert "names CUB_200_2011.tgz twice" in make_data(root, first, second).refusal
    two = site.source("good.tgz") | {"url": [f"{site.address}/part.tgz", f"{site.address}/good.tgz"]}
    assert "several addresses" in make_data(root, two).refusal
    Path(root, "CUB_200_2011.tgz.part").write_bytes(site.files["other.tgz"][:500])
    assert "10 images" in make_data(root, two | site.published).out
    assert Path(root, "CUB_200_2011.tgz").read_bytes() == site.files["good.tgz"]


# -- the folder of the data -------------------------------------------------------------------------------------------

PLACES: dict[str, tuple[object, str]] = {  # what is given as ROOT below a temporary folder, and what the message says
    "typo": ("{here}/dtaa", "There is no folder"),
    "typo in the middle": ("{here}/dtaa/cub", "There is no folder"),
    "relative and missing": ("no_such_folder/cub", "There is no folder"),
    "a file": ("{here}/file", "file"),
    "below a file": ("{here}/file/cub", "file"),
    "a link to nothing": ("{here}/dangling", "dangling"),
    "a link to itself": ("{here}/loop", "loop"),
    "a link to a file": ("{here}/to_file", "to_file"),
    "a device": ("/dev/null", "/dev/null"),
    "a user that does not exist": ("~no-such-user-here/cub", "no-such-user-here"),
    "empty": ("", "dataset.module.root"),
    "blanks": ("   ", "dataset.module.root"),
    "nul": ("a\0b", "dataset.module.root"),
    "name too long": ("{here}/" + "x" * 300, "xxx"),
    "path too long": ("{here}/" + "x/" * 3000, "x/x"),
    "null": (None, "dataset.module.root"),
    "a number": (5, "dataset.module.root"),
    "a list": (["a"], "dataset.module.root"),
    "a mapping": ({"a": 1}, "dataset.module.root"),
    "true": (True, "dataset.module.root"),
    "an address": ("https://host.example/cub", "is an address"),
    "a Windows path": ("C:\\data\\cub", "There is no folder"),
    "a variable": ("$HOME_OF_DATA/cub", "There is no folder"),
    "a pattern": ("{here}/*", "There is no folder"),
    "half a surrogate pair": ("{here}/\ud800", "cannot be printed"),
    "where nothing can be created": ("/proc/self/task", "/proc/self/task"),
}


@pytest.mark.bad_input("command line", "folder of the data (ROOT)")
@pytest.mark.parametrize(
    "case", slow_except([case for case in PLACES if case != "where nothing can be created"], PLACES)
)
def test_a_folder_that_cannot_be_used_is_named_and_nothing_is_created(
    case: str, site: Site, make_data: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "file").write_text("text")
    for name, target in {"dangling": "nowhere", "loop": "loop", "to_file": "file"}.items():
        (here / name).symlink_to(target)
    before = files_below(str(here))
    monkeypatch.chdir(here)
    place, said = PLACES[case]
    ended = make_data(place.format(here=here) if isinstance(place, str) else place, site.source("good.tgz"))
    assert said in ended.refusal and len(ended.refusal) < 12_000, ended.refusal
    assert files_below(str(here)) == before and site.asked == []


DISKS = {
    "full": (errno.ENOSPC, "No space left on device"),
    "over quota": (errno.EDQUOT, "Disk quota exceeded"),
    "read-only": (errno.EROFS, "Read-only file system", "a"),
    "failing": (errno.EIO, "Input/output error"),
    "no permission": (errno.EACCES, "Permission denied", "a"),
    "not permitted": (errno.EPERM, "Operation not permitted", "a"),
    "unplugged": (errno.ENODEV, "No such device"),
    "removed": (errno.ENOENT, "No such file or directory", "a"),
    "replaced by a file": (errno.ENOTDIR, "Not a directory", "a"),
    "file too large": (errno.EFBIG, "File too large"),
    "stale": (errno.ESTALE, "Stale file handle"),
    "too many files": (errno.EMFILE, "Too many open files"),
    "busy": (errno.EBUSY, "Device or resource busy"),
    "name too long": (errno.ENAMETOOLONG, "File name too long"),
    "another file system": (errno.EXDEV, "Invalid cross-device link"),
    "not empty": (errno.ENOTEMPTY, "Directory not empty"),
}


@pytest.mark.bad_input("environment", "disk")
@pytest.mark.parametrize("step", ["download", "unpack"])
@pytest.mark.parametrize("case", slow_except(["full", "read-only"], DISKS))
def test_a_disk_that_fails_is_said_and_the_same_command_goes_on(
    case: str, step: str, site: Site, make_data: Run, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(*DISKS[case])

    with monkeypatch.context() as patch:
        patch.setattr(story, step, fails)
        ended = make_data(root, site.source("good.tgz"))
    assert str(DISKS[case][1]) in ended.refusal, ended
    assert "10 images" in make_data(root, site.source("good.tgz")).out


def test_the_default_folder_is_created_where_the_command_runs(
    site: Site, make_data: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = make_data("data/cub", site.source("good.tgz"), named=False)
    assert not ended.refusal and Path(tmp_path, "data", "cub", "CUB_200_2011.tgz").is_file()


def test_a_disk_too_small_for_a_later_source_is_said_before_it_starts(
    site: Site, make_data: Run, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1_000_000_000))
    small = site.source("404", file="small.tgz", copy="small", room=900_000_000)
    large = site.source("good.tgz", copy="large", room=3_000_000_000)
    assert "needs about 3.0 GB more" in make_data(root, small, large).refusal
    assert site.asked == ["/404"]


def test_the_cache_of_this_file_s_tests_is_in_their_folder(site: Site, tmp_path: Path) -> None:
    assert os.environ["BENCHMARK_CACHE"].startswith(str(tmp_path))
