"""Lost trials: a unit exhausted its retries, because its worker died or hung, or because of a defect.

A lost trial has no result: its folder holds `lost.json` but there is no record, so the same command retries it.
Meanwhile the search continues and treats the trial as abandoned; the `ask.json` of each later proposal lists the trials
that were lost when it was made. Once such a trial is finished, these proposals are made again, in order. An unchanged
proposal keeps its trial (as in Sobol's design, which does not depend on scores); for a changed proposal, the trial is
quarantined and trained again with the new setting. In the end, the records equal those of a search without lost trials.
"""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from benchmark.core import records
from benchmark.core.provenance import provenance
from benchmark.core.records import JsonObject
from benchmark.study import contents
from benchmark.study.identity import Identity, StudyIdentity

MOST_IN_A_ROW = 3  # consecutive lost trials that stop the search: the machines are at fault, not the trials


def lost_record(
    index: int, setting: Mapping[str, float | int], units: Sequence[JsonObject], identity: Identity
) -> records.Record:
    """The record of a lost trial, which a searcher receives as a trial without a score.

    Args:
        index: number of the trial.
        setting: its hyper-parameters.
        units: its lost units, at least one, each with `unit`, `reason`, `log` and `tail`.
        identity: what the trial depends on.
    """
    result = {"index": index, "setting": dict(setting), "status": "lost", "map_at_r": None, "standard_error": None}
    return records.Record(
        "lost", result | {"reason": units[0]["reason"]}, provenance(units=list(units)), identity.to_json()
    )


def read_lost(folder: Path, study: StudyIdentity, finished: Container[int]) -> dict[int, records.Record]:
    """Records of the lost trials below a search's folder, by index.

    Args:
        folder: the search's folder, `bo`.
        study: what the records must agree with; those that do not are skipped.
        finished: indices of finished trials, which are skipped.
    """
    found = {}
    for path in sorted(folder.glob("trial_*/lost.json")):
        try:
            record = contents.read(path, contents.Lost)
        except (records.CorruptFileError, records.NewerFileError):
            continue  # the trial has no record either, so it is trained again
        index = record.result["index"]
        if index not in finished and not study.mismatch(record, index, record.result["setting"]):
            found[index] = record
    return found


def is_stale(proposal: Path, finished: Container[int]) -> bool:
    """Whether a proposal was made while a trial was lost that has finished since.

    Args:
        proposal: path of an `ask.json`; one that is missing or damaged is not stale.
        finished: indices of finished trials.
    """
    try:
        lost = contents.read(proposal, contents.Ask).provenance.get("lost", ())
    except (FileNotFoundError, records.CorruptFileError, records.NewerFileError):
        return False
    return any(index in finished for index in lost)
