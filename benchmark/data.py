"""make data: find a data set, or download and unpack it, and describe its contents."""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("data"))

import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.download import MARKER, DownloadError, Limits, download, unpack
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.datasets.listing import MissingDataError
from benchmark.study.prepare import describe, make_ready
from benchmark.study.study import Study


@dataclass(frozen=True)
class Source:
    """One published file of a data set, as `conf/dataset` describes it.

    Attributes:
        file: file name.
        url: address of the file.
        sha256: published SHA-256, if any.
        md5: published MD5, if any.
        bytes: published size, if any.
        room: approximate disk space for the file and its unpacked contents, in bytes.
        unpack: for an archive, the limits on its contents, see `download.Limits`.
    """

    file: str
    url: str = ""
    sha256: str | None = None
    md5: str | None = None
    bytes: int | None = None
    room: int | None = None
    unpack: dict[str, int] | None = None


def data(study: Study, overrides: list[str]) -> None:
    """Prepare the study's data set and describe it.

    Args:
        study: the study whose data set is prepared.
        overrides: unused; every command receives its overrides.

    Raises:
        UserError: the data set is missing and cannot be downloaded, is damaged, or does not fit on the disk.
    """
    # 1. find the data, or download it
    try:
        dataset = study.make_dataset()
    except MissingDataError as missing:
        fetch(study, missing)
        dataset = study.make_dataset()

    # 2. decode or draw missing images, and check existing ones
    summary = make_ready(study, dataset, ("trainval", "test"))
    dataset.verify()

    # 3. describe its contents
    write("\n  ".join([describe(study, summary), *summary.notes]))


def fetch(study: Study, missing: MissingDataError) -> None:
    """Download and unpack the data set's published files into its folder; complete files are kept.

    Raises:
        UserError: there is nothing to download, a download fails, or the disk is too small; the message says what to
            do, and how to obtain the data by hand.
    """
    config = study.config.dataset
    by_hand = config.by_hand.strip()
    if not config.sources:
        raise UserError("\n".join(filter(None, [str(missing), by_hand])))
    root = Path(config.module["root"]).expanduser()
    check_room(study, root)
    write(f"{missing}\nDownloading {config.label} to {root.absolute()}. Licence: {config.licence}")
    with records.only_one(root / ".lock", f"The folder {root}"):
        for source in sources(study):
            try:
                fetch_one(root, source)
            except DownloadError as error:
                raise UserError("\n".join(filter(None, [str(error), by_hand]))) from error


def sources(study: Study) -> list[Source]:
    """The published files of the study's data set."""
    return [Source(**source) for source in study.config.dataset.sources]


def check_room(study: Study, root: Path) -> None:
    """Check that the disk has room for everything that remains to be downloaded and unpacked.

    Raises:
        UserError: the disk is too small; the message says how much is needed and free, and how to use another disk.
    """
    need = sum(_missing_bytes(root, source) for source in sources(study))
    disk = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(disk).free
    if need > free:
        raise UserError(
            f"{study.config.dataset.label} needs about {need / 1e9:,.1f} GB more in {root.absolute()}, for the archive "
            f"and its contents, but the disk has {free / 1e9:,.1f} GB free. Free some space, or name a folder on "
            f"another disk: {study.command('data')} {arguments({'dataset.module.root': 'FOLDER'})}"
        )


def _missing_bytes(root: Path, source: Source) -> int:
    """Approximate disk space that a source still needs, in bytes."""
    path = root / source.file
    if (_folder(root, source) / MARKER).is_file():
        return 0
    present = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.part")) if file.is_file())
    return max(0, (source.room or source.bytes or 0) - present)


def _folder(root: Path, source: Source) -> Path:
    """The folder into which an archive is unpacked."""
    return root / source.file.partition(".")[0]


def fetch_one(root: Path, source: Source) -> None:
    """Download one source file and, if it is an archive, unpack it next to it."""
    path = root / source.file
    folder = _folder(root, source)
    if source.unpack and (folder / MARKER).is_file():
        return  # unpacked already; the archive may have been deleted
    download(source.url, path, sha256=source.sha256, md5=source.md5, size=source.bytes)
    if source.unpack:
        unpack(path, folder, limits=Limits(**source.unpack))
