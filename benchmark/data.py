"""make data: find a data set, or download and unpack it, and describe its contents."""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("data"))

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.core import errors, records, sources
from benchmark.core.archives import is_unpacked, unpack
from benchmark.core.console import write
from benchmark.core.download import AT_MOST, BY_HAND, DownloadError, download, part_of, reason
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, command, key_of
from benchmark.core.sources import Source
from benchmark.core.wording import human_size
from benchmark.datasets import Dataset
from benchmark.datasets.listing import MissingDataError
from benchmark.study.command import first_target
from benchmark.study.preflight import smallest_fold
from benchmark.study.prepare import describe, licence, make_ready
from benchmark.study.study import Study

ROOT = "dataset.module.root"
REFUSED = ".refused"  # suffix of a downloaded file that did not hold the data set


def data(study: Study, overrides: list[str]) -> None:
    """Prepare the study's data set and describe it.

    Args:
        study: the study whose data set is prepared.
        overrides: the overrides of the command line, which may name the data's folder.

    Raises:
        UserError: the data set is missing and cannot be downloaded, is damaged, or does not fit on the disk.
    """
    # 1. find the data, or download it
    try:
        dataset = study.make_dataset()
    except MissingDataError as missing:
        dataset = fetch(study, missing, named=ROOT in map(key_of, overrides))

    # 2. decode or draw missing images, and check existing ones
    summary = make_ready(study, dataset, ("trainval", "test"))
    dataset.verify()

    # 3. describe its contents
    write(describe(study, summary))
    try:
        following = next_command(study, dataset, overrides)
    except UserError as error:
        write(f"A search is not possible as it is configured: {error}")
    else:
        write(f"Next: {following}")


def next_command(study: Study, dataset: Dataset, overrides: Sequence[str]) -> str:
    """The shell command that uses a data set: one that trains, or one that scores where all classes are for testing.

    Args:
        study: the study whose data set was prepared.
        dataset: the data set.
        overrides: the overrides of the command line.

    Raises:
        UserError: it has too few classes for the folds of a search.
    """
    if not len(labels := dataset.trainval().labels):
        own = [entry for entry in overrides if key_of(entry).partition(".")[0] == "dataset"]
        return command("score", {"model": "FOLDER"}, overrides=own)
    smallest_fold(study, np.unique(labels), dataset.total_classes)
    return study.command(first_target(study.config))


def fetch(study: Study, missing: MissingDataError, named: bool) -> Dataset:
    """Download and unpack the data set's published files into its folder, from the first source that works.

    Complete files are kept, and files that lie in the folder already are not downloaded.

    Args:
        study: the study whose data set is missing.
        missing: what was not found.
        named: whether the user named the folder, which must then exist.

    Returns:
        The data set.

    Raises:
        UserError: there is nothing to download, every source fails, or the disk is too small; the message says what
            was tried, what to do, and how to obtain the data by hand.
    """
    if study.config.study:
        raise missing  # a stored file decides neither what is downloaded nor where to
    root = Path(study.config.dataset.module["root"]).expanduser()
    tried: list[str] = []
    copies = _copies(study, root, tried)
    if not copies and not tried:
        raise UserError("\n".join(filter(None, [str(missing), _by_hand(study)]))) from missing
    _check_folder(study, root, named)
    write(str(missing))
    for copy in copies:
        check_room(study, root, copy)
        write(_announcement(study, root, copy))
        try:
            with records.only_one(root / ".lock", f"The folder {root}"):
                return fetch_copy(study, root, copy)
        except DownloadError as error:
            tried.append(reason(error))
            if copy is not copies[-1]:
                write(f"{tried[-1]} Trying the next source.")
    raise UserError("\n".join([*_report(study, tried), *_hints(root, copies[:1]), _by_hand(study)]).strip())


def stated_sources(study: Study) -> list[Source]:
    """The published files of the study's data set: those of its configuration, or else those of `conf/sources.yaml`.

    Raises:
        UserError: an entry is invalid.
    """
    config = study.config.dataset
    if config.sources:
        return sources.parse(config.sources, "dataset.sources")
    known = sources.data_set(config.module["_target_"])
    return known.sources if known else []


def _by_hand(study: Study) -> str:
    config = study.config.dataset
    known = sources.data_set(config.module["_target_"])
    return (config.by_hand or (known.by_hand if known else "")).strip()


def _copies(study: Study, root: Path, tried: list[str]) -> list[list[Source]]:
    """The copies of the data set that can be used, in order; first those whose files lie in the folder already.

    Args:
        study: the study whose data set is missing.
        root: folder of the data set.
        tried: receives a sentence for each copy that is not used because an earlier download of it was refused.
    """
    usable = []
    for copy in sources.copies(stated_sources(study)):
        absent = [source for source in copy if not _is_there(root, source)]
        refused = [kept for source in absent if (kept := _refused(root, source)).exists()]
        if refused:
            tried.append(f"{refused[0]} was downloaded earlier and did not hold the data set. Delete it to try again.")
        elif all(source.addresses for source in absent):
            usable.append(copy)
    return sorted(usable, key=lambda copy: not all(_is_there(root, source) for source in copy))


def _check_folder(study: Study, root: Path, named: bool) -> None:
    """Refuse a folder that cannot be used, or that the user named although it does not exist, which is often a typo."""
    if root.is_dir():
        return
    label, other = study.config.dataset.label, f"{study.command('data')} {arguments({ROOT: 'FOLDER'})}"
    if root.exists() or root.is_symlink():
        what = "not a folder" if root.exists() else "a link to a folder that does not exist"
        raise UserError(f"{root} is {what}. Name the folder of {label}: {other}")
    if named:
        raise UserError(
            f"There is no folder {root}, and nothing was downloaded. If {label} lies elsewhere, name its folder: "
            f"{other}\nTo download it there, create the folder first: mkdir -p {shlex.quote(str(root))}"
        )


def check_room(study: Study, root: Path, copy: Sequence[Source]) -> None:
    """Check that the disk has room for everything that remains to be downloaded and unpacked.

    Args:
        study: the study whose data set is missing.
        root: folder of the data set.
        copy: the files to obtain.

    Raises:
        UserError: the disk is too small; the message says how much is needed and free, and how to use another disk.
    """
    need = sum(_missing_bytes(root, source) for source in copy)
    disk = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(disk).free
    if need > free:
        raise UserError(
            f"{study.config.dataset.label} needs about {human_size(need)} more in {root.absolute()}, for the archive "
            f"and its contents, but the disk has {human_size(free)} free. Free some space, or name a folder on "
            f"another disk: {study.command('data')} {arguments({ROOT: 'FOLDER'})}"
        )


def _missing_bytes(root: Path, source: Source) -> int:
    """Approximate disk space that a source still needs, in bytes."""
    path = root / source.file
    if is_unpacked(_folder(root, source)):
        return 0
    present = sum(file.stat().st_size for file in (path, part_of(path)) if file.is_file())
    return max(0, (source.room or source.bytes or 0) - present)


def _announcement(study: Study, root: Path, copy: Sequence[Source]) -> str:
    """What will be downloaded from where, and how large it is."""
    label, absent = study.config.dataset.label, [source for source in copy if not _is_there(root, source)]
    if not absent:
        return f"Using {', '.join(source.file for source in copy)} in {root.absolute()}."
    known = [source.bytes for source in absent if source.bytes]
    size = f" ({human_size(sum(known))})" if len(known) == len(absent) else ""
    need = sum(_missing_bytes(root, source) for source in copy)
    room = f" About {human_size(need)} of disk space will be used, contents included." if need else ""
    origin = f" from {copy[0].copy}" if copy[0].copy else ""
    return (
        f"Downloading {label} to {root.absolute()}{origin}: {', '.join(source.file for source in absent)}{size}.{room} "
        f"Licence: {licence(study)}"
    )


def fetch_copy(study: Study, root: Path, copy: Sequence[Source]) -> Dataset:
    """Download and unpack the files of one copy of the data set, and read it.

    Args:
        study: the study whose data set is missing.
        root: folder of the data set.
        copy: the files to obtain.

    Returns:
        The data set.

    Raises:
        DownloadError: a file cannot be obtained, or files without a published checksum do not hold the data set; these
            are then set aside.
        UserError: files with a published checksum do not hold the data set that the study expects, or the folder
            cannot be written.
    """
    try:
        for source in copy:
            fetch_one(root, source)
    except OSError as error:
        if errors.message_for_user(error):
            raise
        raise UserError(
            f"The folder {root} cannot be used ({error.strerror}). Name another one: {study.command('data')} "
            f"{arguments({ROOT: 'FOLDER'})}"
        ) from error
    try:
        return study.make_dataset()
    except UserError as refusal:
        doubtful = [source for source in copy if not source.is_verifiable and (root / source.file).is_file()]
        if not doubtful:
            raise
        kept = ", ".join(str(_set_aside(root, source)) for source in doubtful)
        raise DownloadError(
            f"What came from {copy[0].copy or doubtful[0].file} is not {study.config.dataset.label}: {refusal} It is "
            f"kept as {kept}."
        ) from refusal


def fetch_one(root: Path, source: Source) -> None:
    """Download one file from the first address that works and, if it is an archive, unpack it next to it.

    Args:
        root: folder of the data set.
        source: the file.

    Raises:
        DownloadError: every address fails, or the archive cannot be unpacked; an archive without a published checksum
            is then set aside.
        OSError: the disk is full or the folder cannot be written.
    """
    path, folder = root / source.file, _folder(root, source)
    if source.unpack and is_unpacked(folder):
        return  # unpacked already; the archive may have been deleted
    addresses = source.addresses
    if path.exists():
        addresses = addresses[:1] or ["https://"]  # it is verified, and no address is opened
    most = source.room or AT_MOST
    for number, address in enumerate(addresses, start=1):
        try:
            download(address, path, sha256=source.sha256, md5=source.md5, size=source.bytes, at_most=most)
            break
        except DownloadError as error:
            if number == len(addresses):
                raise
            write(f"{reason(error)} Trying the next address.")
    if source.unpack:
        try:
            unpack(path, folder, limits=source.unpack)
        except DownloadError as error:
            if source.is_verifiable or folder.exists():
                raise
            raise DownloadError(f"{error} It is kept as {_set_aside(root, source)}.") from error


def _folder(root: Path, source: Source) -> Path:
    """The folder into which an archive is unpacked."""
    return root / source.file.partition(".")[0]


def _is_there(root: Path, source: Source) -> bool:
    return (root / source.file).is_file() or (source.unpack is not None and is_unpacked(_folder(root, source)))


def _refused(root: Path, source: Source) -> Path:
    return root / f"{source.file}{REFUSED}"


def _set_aside(root: Path, source: Source) -> Path:
    """Rename a file that did not hold the data set, and delete what was unpacked from it; return its new path."""
    kept = _refused(root, source)
    os.replace(root / source.file, kept)
    if source.unpack and is_unpacked(_folder(root, source)):
        shutil.rmtree(_folder(root, source))
    return kept


def _report(study: Study, tried: Sequence[str]) -> list[str]:
    """What was tried, one line each."""
    if len(tried) == 1:
        return [*tried]
    return [f"{study.config.dataset.label} could not be downloaded. Tried, in this order:", *(f"- {t}" for t in tried)]


def _hints(root: Path, copies: Sequence[Sequence[Source]]) -> list[str]:
    """How to download the files of a copy by hand."""
    absent = [s for copy in copies for s in copy if s.addresses and not _is_there(root, s)]
    if not absent:
        return []
    lines = [f"{source.addresses[0]}\nand put it at {(root / source.file).absolute()}" for source in absent]
    return [f"{BY_HAND} " + "; ".join(lines) + "; then run the same command again."]
