"""make data: find a data set, or fetch and unpack it, and say what it holds."""

import shutil
from pathlib import Path
from typing import Any

from benchmark.core import records
from benchmark.core.download import MARKER, DownloadError, Limits, download, unpack
from benchmark.datasets.image_dataset import ImageDataset
from benchmark.datasets.listing import MissingDataError
from benchmark.study.cli import main
from benchmark.study.prepare import describe, make_ready
from benchmark.study.study import Study


def data(study: Study, overrides: list[str]) -> None:
    """Make the study's data set ready and describe it."""
    # 1. find what is there, else fetch it
    try:
        dataset = study.make_dataset()
    except MissingDataError as missing:
        fetch(study, missing)
        dataset = study.make_dataset()

    # 2. decode or draw what is missing, and check what is there
    found = make_ready(study, dataset, ("trainval", "test"))
    if isinstance(dataset, ImageDataset):
        dataset.verify()

    # 3. say what it holds
    print("\n  ".join([describe(study, found), *found.get("notes", ())]))


def fetch(study: Study, missing: MissingDataError) -> None:
    """Download and unpack the data set's published files into its folder; what is there and whole is kept.

    Raises:
        ValueError: there is nothing to fetch, or it cannot be had, or the disk is too small; the message says what to
            do, by hand if need be.
    """
    config = study.config.dataset
    by_hand = config.by_hand.strip()
    if not config.sources:
        raise ValueError("\n".join(filter(None, [str(missing), by_hand])))
    root = Path(config.module["root"]).expanduser()
    check_room(study, root)
    print(f"{missing}\nFetching {config.label} to {root.absolute()}. Its licence: {config.licence}", flush=True)
    with records.only_one(root / ".lock", f"The folder {root}"):
        for source in config.sources:
            try:
                fetch_one(root, source)
            except DownloadError as error:
                raise ValueError("\n".join(filter(None, [str(error), by_hand]))) from error


def check_room(study: Study, root: Path) -> None:
    """See that the disk can hold what is still to be fetched and unpacked.

    Raises:
        ValueError: it cannot; the message has what is needed, what is free and how to name another disk.
    """
    need = sum(_to_come(root, source) for source in study.config.dataset.sources)
    disk = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(disk).free
    if need > free:
        raise ValueError(
            f"{study.config.dataset.label} needs about {need / 1e9:,.1f} GB more in {root.absolute()}, the archive and "
            f"what it holds, and the disk has {free / 1e9:,.1f} GB free. Make room, or name a folder on another disk: "
            f"{study.command('data')} ROOT=FOLDER"
        )


def _to_come(root: Path, source: dict[str, Any]) -> int:
    """Bytes that a source is still going to take, about."""
    path = root / source["file"]
    if (_folder(root, source) / MARKER).is_file():
        return 0
    there = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.part")) if file.is_file())
    room: int = source.get("room") or source.get("bytes") or 0
    return max(0, room - there)


def _folder(root: Path, source: dict[str, Any]) -> Path:
    """Where an archive is unpacked."""
    return root / str(source["file"]).partition(".")[0]


def fetch_one(root: Path, source: dict[str, Any]) -> None:
    """One file, and the folder beside it with what it holds if it is an archive."""
    path = root / source["file"]
    folder = _folder(root, source)
    if source.get("unpack") and (folder / MARKER).is_file():
        return  # the archive itself may be deleted then
    download(source["url"], path, sha256=source.get("sha256"), md5=source.get("md5"), size=source.get("bytes"))
    if source.get("unpack"):
        unpack(path, folder, limits=Limits(**source["unpack"]))


if __name__ == "__main__":
    main(data)
