"""Work that is lost: units whose worker died, hung or failed by a defect more often than they are tried again.

A loss is no result. A lost trial leaves `lost.json` in its folder and no record, a lost run nothing at all, so the same
command tries them again. Meanwhile a search goes on with the trial as abandoned, and its later proposals say in
`ask.json` which trials were lost to them. Once such a trial is there, those proposals are made anew, in order: where
one is the same its trial stands (as in Sobol's design, which no score changes), where it differs its trial is set aside
and trained with the new setting. So the records come to be those of a search that lost nothing.
"""

from collections.abc import Container
from pathlib import Path
from typing import Any

from benchmark.core import records
from benchmark.core.provenance import provenance

IN_A_ROW = 3  # lost trials that say that the place is broken, not the trial


def record_of(index: int, setting: dict[str, Any], units: list[dict[str, Any]]) -> records.Record:
    """What is known of a lost trial; the searcher is told of it as of one without a score.

    Args:
        index: of the trial.
        setting: its hyper-parameters.
        units: answers of the lost ones, see `dispatch.Jobs.finished`.
    """
    result = {"index": index, "setting": setting, "status": "lost", "map_at_r": None, "standard_error": None}
    return records.Record("lost", result | {"reason": units[0]["reason"]}, provenance(units=units))


def read(folder: Path, finished: Container[int]) -> dict[int, records.Record]:
    """Lost trials below a search's folder, by index, but those that are finished by now."""
    found = {}
    for path in sorted(folder.glob("trial_*/lost.json")):
        try:
            record = records.read_record(path)
        except records.CorruptFileError:
            continue  # the trial has no record, which says enough
        if record.result["index"] not in finished and path.parent.name == f"trial_{record.result['index']:03d}":
            found[record.result["index"]] = record
    return found


def is_stale(ask: Path, finished: Container[int]) -> bool:
    """Whether a proposal was made while a trial was lost that is finished by now."""
    try:
        told = records.read_record(ask).provenance.get("lost", ())
    except (FileNotFoundError, records.CorruptFileError):
        return False
    return any(index in finished for index in told)
