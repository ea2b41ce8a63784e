"""Lost trials: a unit of theirs exhausted its retries, because its worker died or hung, or it failed by a defect.

A lost trial has no result. It leaves `lost.json` in its folder and no record, so the same command retries it. Meanwhile
the search continues with the trial as abandoned, and later proposals list in `ask.json` the trials that were lost when
they were made. Once such a trial is finished, these proposals are made again, in order: an unchanged proposal keeps its
trial (as in Sobol's design, which does not depend on scores), a changed one has its trial quarantined and trained with
the new setting. In the end the records are those of a search that lost nothing.
"""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from benchmark.core import records
from benchmark.core.provenance import provenance
from benchmark.core.records import JsonObject

MOST_IN_A_ROW = 3  # more lost trials in a row show that the machines are at fault and not the trials


def lost_record(index: int, setting: Mapping[str, float | int], units: Sequence[JsonObject]) -> records.Record:
    """The record of a lost trial, which a searcher receives as a trial without a score.

    Args:
        index: number of the trial.
        setting: its hyper-parameters.
        units: its lost units, at least one, each with `unit`, `reason`, `log` and `tail`.
    """
    result = {"index": index, "setting": dict(setting), "status": "lost", "map_at_r": None, "standard_error": None}
    return records.Record("lost", result | {"reason": units[0]["reason"]}, provenance(units=list(units)))


def read_lost(folder: Path, finished: Container[int]) -> dict[int, records.Record]:
    """Records of the lost trials below a search's folder, by index.

    Args:
        folder: the search's folder, `bo`.
        finished: indices of trials that are finished by now, which are skipped.
    """
    found = {}
    for path in sorted(folder.glob("trial_*/lost.json")):
        try:
            record = records.read_record(path)
        except records.CorruptFileError:
            continue  # the trial has no record either, so it is trained again
        if record.result["index"] not in finished and path.parent.name == f"trial_{record.result['index']:03d}":
            found[record.result["index"]] = record
    return found


def is_stale(proposal: Path, finished: Container[int]) -> bool:
    """Whether a proposal was made while a trial was lost that is finished by now.

    Args:
        proposal: path of an `ask.json`; one that is missing or damaged is not stale.
        finished: indices of finished trials.
    """
    try:
        lost = records.read_record(proposal).provenance.get("lost", ())
    except (FileNotFoundError, records.CorruptFileError):
        return False
    return any(index in finished for index in lost)
