"""make data: find a data set, or fetch and unpack it, and say what it holds."""

from pathlib import Path
from typing import Any

from benchmark import records
from benchmark.checks import describe, make_ready
from benchmark.datasets.listing import MissingDataError
from benchmark.datasets.picture_files import PictureFiles
from benchmark.fetch import FetchError, Limits, download, unpack
from benchmark.study import Study, main


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
    if isinstance(dataset, PictureFiles):
        dataset.verify()

    # 3. say what it holds
    print("\n  ".join([describe(study, found), *found.get("notes", ())]))


def fetch(study: Study, missing: MissingDataError) -> None:
    """Download and unpack the data set's published files into its folder; what is there and whole is kept.

    Raises:
        ValueError: there is nothing to fetch, or it cannot be had; the message says what to do by hand.
    """
    config = study.config.dataset
    by_hand = config.by_hand.strip()
    if not config.sources:
        raise ValueError("\n".join(filter(None, [str(missing), by_hand])))
    root = Path(config.module["root"]).expanduser()
    print(f"{missing}\nFetching {config.label} to {root.absolute()}. Its licence: {config.licence}", flush=True)
    with records.only_one(root / ".lock", f"The folder {root}"):
        for source in config.sources:
            try:
                fetch_one(root, source)
            except FetchError as error:
                raise ValueError("\n".join(filter(None, [str(error), by_hand]))) from error


def fetch_one(root: Path, source: dict[str, Any]) -> None:
    """One file, and the folder beside it with what it holds if it is an archive."""
    path = root / source["file"]
    folder = root / source["file"].partition(".")[0]
    if source.get("unpack") and (folder / ".unpacked").is_file():
        return  # the archive itself may be deleted then
    download(source["url"], path, sha256=source.get("sha256"), md5=source.get("md5"), size=source.get("bytes"))
    if source.get("unpack"):
        unpack(path, folder, limits=Limits(**source["unpack"]))


if __name__ == "__main__":
    main(data)
