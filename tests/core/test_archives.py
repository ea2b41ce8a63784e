"""Archives, genuine and hostile."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmark.core.archives import MARKER, Limits, unpack
from benchmark.core.download import DownloadError

LIMITS = Limits(members=10, bytes=10_000)
FILES = {"birds/a.jpg": b"a" * 100, "birds/deep/b.jpg": b"b", "lists.txt": b"1 2"}


def tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return path


def zipped(path: Path, files: dict[str, bytes], mode: int | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (mode or stat.S_IFREG | 0o644) << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return path


def archive_of(kind: str, folder: Path, files: dict[str, bytes]) -> Path:
    return zipped(folder / "x.zip", files) if kind == "zip" else tar(folder / "x.tar", files, kind)


def content(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found.pop(MARKER)
    return found


def assert_refused(archive: Path, said: str, limits: Limits = LIMITS) -> None:
    """It is refused, and nothing but the archive is left."""
    before = set(archive.parent.parent.rglob("*"))
    with pytest.raises(DownloadError, match=said):
        unpack(archive, archive.parent / "out", limits=limits)
    assert set(archive.parent.parent.rglob("*")) == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("kind", ["w:gz", "w", "w:bz2", "w:xz", "zip"])
def test_an_archive_is_unpacked_whatever_it_is_called(folder: Path, kind: str) -> None:
    unpack(archive_of(kind, folder, FILES), folder / "out", limits=LIMITS)
    assert content(folder / "out") == FILES
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_it_is_not_done_twice_and_an_interrupted_one_starts_over(folder: Path) -> None:
    archive = tar(folder / "x.tgz", FILES)
    (folder / ".out.partial").mkdir()
    (folder / ".out.partial" / "left").write_text("by a killed process")
    unpack(archive, folder / "out", limits=LIMITS)
    archive.unlink()
    assert content(unpack(archive, folder / "out", limits=LIMITS)) == FILES


def test_a_folder_that_somebody_else_made_is_left_alone(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "mine").write_text("precious")
    assert_refused(tar(folder / "x.tgz", FILES), "out is in the way")


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "a\\..\\evil", "C:/evil"])
def test_a_member_outside_of_the_folder_is_refused(folder: Path, kind: str, name: str) -> None:
    assert_refused(archive_of(kind, folder, {"good": b"1", name: b"2"}), "would be written outside")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(folder: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("odd")
    member.type, member.linkname = kind, "/etc/passwd"
    assert_refused(tar(folder / "x.tgz", FILES, "w:gz", member), "'odd' is a link or a device")


def test_links_in_a_zip_are_refused(folder: Path) -> None:
    assert_refused(zipped(folder / "x.zip", {"odd": b"/etc/passwd"}, stat.S_IFLNK | 0o777), "'odd' is a link")


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
def test_too_many_members_and_too_many_bytes_are_refused(folder: Path, kind: str) -> None:
    archive = archive_of(kind, folder, {str(i): b"" for i in range(11)})
    assert_refused(archive, "more than 10 members")
    archive = archive_of(kind, folder, {"bomb": b"\0" * 10_000_000, "more": b""})
    assert archive.stat().st_size < 20_000
    assert_refused(archive, "more than 10,000 bytes")


@pytest.mark.parametrize("kind", ["w:gz", "w:xz", "zip"])
def test_a_truncated_archive_is_refused(folder: Path, kind: str) -> None:
    archive = archive_of(kind, folder, {"noise": os.urandom(5_000)})
    archive.write_bytes(archive.read_bytes()[:3_000])
    assert_refused(archive, r"cannot be unpacked: .*Check where it comes from")


def test_a_zip_with_a_damaged_member_is_refused(folder: Path) -> None:
    archive = zipped(folder / "x.zip", {"noise": os.urandom(5_000)})
    damaged = bytearray(archive.read_bytes())
    damaged[2_500] ^= 255
    archive.write_bytes(damaged)
    assert_refused(archive, "cannot be unpacked")


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"\x1f\x8b\x08garbage", b"PK\x03\x04garbage"])
def test_what_is_no_archive_is_refused(folder: Path, garbage: bytes) -> None:
    archive = folder / "x.tgz"
    archive.write_bytes(garbage)
    assert_refused(archive, "cannot be unpacked")


def test_a_member_that_is_a_file_and_a_folder_is_refused(folder: Path) -> None:
    assert_refused(tar(folder / "x.tgz", {"a": b"1", "a/b": b"2"}), "both a file and a folder")
