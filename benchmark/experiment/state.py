"""How far the studies of an experiment are."""

from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.experiment.selected import StudyOf
from benchmark.report.progress import stages
from benchmark.study.base import PRESET, at_base
from benchmark.study.identity import VERSION
from benchmark.study.opening import difference
from benchmark.study.stored import NoStudyError, read_study
from benchmark.study.study import Study

MOST = 3  # differences that are named
FINISHED, STARTED, MISSING = "finished", "started", "missing"


def progress(study: StudyOf) -> tuple[str, int]:
    """A study's state, and the number of its trainings that are done or skipped, both with its repeated searches.

    Args:
        study: the study.

    Returns:
        `finished`, `started` or `missing`, or why its folder cannot be read; and the number of trainings.
    """
    each = study.num_trainings // study.num_searches
    found = [_progress_in(directory, each) for directory in study.directories]
    done = sum(number for _, number in found)
    if faults := [name for name, _ in found if name not in (FINISHED, STARTED, MISSING)]:
        return faults[0], done
    finished = all(name == FINISHED for name, _ in found)
    return FINISHED if finished else STARTED if done else MISSING, done


def _progress_in(directory: Path, num_trainings: int) -> tuple[str, int]:
    """The state of the study in a folder, and the number of its trainings that are done or skipped."""
    try:
        stored = read_study(directory)
        parts = stages(stored, directory)
    except NoStudyError:
        return MISSING, 0
    except (UserError, OSError) as error:
        return str(error), 0
    done = min(sum(part.count("done") + part.skipped for part in parts), num_trainings)
    last = parts[-1]
    complete = last.kind == "run" and all(part.finished >= part.total for part in parts)
    return FINISHED if complete and done == num_trainings else STARTED if done else MISSING, done


def other_study(composed: Study) -> str:
    """What distinguishes the study in a folder from the one that the experiment describes.

    Empty if they agree, or cannot be compared: an older version has other identities, and without its base's search
    the setting of `preset=base` is not known.

    Args:
        composed: the study that the experiment describes.
    """
    try:
        stored = read_study(composed.directory)
        if stored.version < VERSION:
            return ""
        if composed.config.preset == PRESET:
            composed = at_base(composed).study
        if composed.identity(stored.fingerprint) == stored.identity:
            return ""
        found = difference(stored.science, composed.science(stored.fingerprint))
    except (UserError, OSError):
        return ""
    more = f" and {len(found) - MOST:,} more" if len(found) > MOST else ""
    return f"another study is in its folder:{';'.join(found[:MOST])}{more}"
