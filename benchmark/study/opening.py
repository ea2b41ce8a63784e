"""Open a study's folder for a command that adds to it, after checking that its content belongs to the same study.

The study's identity and code are compared with those in `study.yaml`. If that file is missing or damaged, they are
compared with the identities in the records.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmark.core import invocation, records
from benchmark.core.code import Code
from benchmark.core.errors import UserError
from benchmark.core.invocation import key_of
from benchmark.core.provenance import commit, versions
from benchmark.core.records import JsonObject
from benchmark.study import layout, schedules
from benchmark.study.code import search_code, training_code
from benchmark.study.identity import VERSION, StudyIdentity
from benchmark.study.selected import BOOKKEEPING
from benchmark.study.stored import NAME, NoStudyError, StoredCode, StoredStudy, check_version, read_study, write_study
from benchmark.study.study import Study

Command = Literal["bo", "final-eval", "traditional"]
NOT_STORED = ("plugins", "study", "accept_code")  # keys that apply to one command only


@dataclass(frozen=True)
class Opened:
    """A study whose folder was checked, so that a command may add to it.

    Attributes:
        identity: what the identities of its records must agree with; its `code` holds every accepted version.
        code: digest of the code that trains in this session.
        search_code: digest of the code that proposes trials in this session.
        accepted_search_code: digests of all code whose proposals belong to the study.
        notes: sentences for the user.
    """

    identity: StudyIdentity
    code: str
    search_code: str
    accepted_search_code: frozenset[str]
    notes: list[str]


def open_study(study: Study, command: Command, fingerprint: str) -> Opened:
    """Create a study's folder, or check that its content belongs to this study and was computed by accepted code.

    Args:
        study: the study to run.
        command: the command that adds to it.
        fingerprint: identifies the data on this machine.

    Raises:
        UserError: the folder holds results of another configuration, of other code or of another version (the message
            shows the difference), or `study.yaml` cannot be read.
        WriteError: `study.yaml` cannot be written.
    """
    code, search = _stored(training_code(study)), _stored(search_code(study))
    identity = study.identity(fingerprint)
    notes = schedules.starts_late(study.config) if command != "traditional" else []
    try:
        found = _existing(study, identity)
    except (NoStudyError, records.CorruptFileError) as error:
        found = None
        _check_orphans(study, identity, code.digest, search.digest)
        if isinstance(error, records.CorruptFileError):
            kept = records.quarantine(study.directory / NAME)
            notes.append(f"{error} It is kept as {kept.name}; a new one is written, and finished work is kept.")
    if found is None:
        stored = StoredStudy(
            version=VERSION, identity=identity, fingerprint=fingerprint, versions=versions(),
            science=study.science(fingerprint), config=_config(study), trials=study.num_trials,
            num_runs=study.config.protocol.num_runs, code=[code], search_code=[search] if command == "bo" else [],
            plugins=list(study.config.plugins), overrides=_overrides(),
        )  # fmt: skip
    else:
        if found.identity != identity:
            raise UserError(
                f"{study.directory} holds {study.title} with another configuration:\n"
                + "\n".join(difference(found.science, study.science(fingerprint)))
                + "\nGo on with the old values: "
                + f"{invocation.command(command, {'study': study.directory})}; keep both side by side: "
                + f"{invocation.arguments({'variant': 'NAME'})}; or delete the folder."
            )
        codes = _accepted(study, command, found.code, code, "computes")
        searches = found.search_code
        if command == "bo":
            searches = _accepted(study, command, searches, search, "searches")
        notes += [_accepted_note(known) for known in (codes, searches) if len(known) > 1]
        notes += _changed_versions(found.versions)
        stored = dataclasses.replace(
            found, config=_config(study, found), num_runs=study.config.protocol.num_runs, code=codes,
            trials=study.num_trials if command == "bo" else found.trials,
            search_code=searches, plugins=sorted({*found.plugins, *study.config.plugins}),
        )  # fmt: skip
    if stored != found:
        write_study(study.directory, stored)
    return Opened(
        stored.expected, code.digest, search.digest,
        frozenset(entry.digest for entry in stored.search_code), notes,
    )  # fmt: skip


def _existing(study: Study, identity: str) -> StoredStudy:
    """The content of the study's `study.yaml`.

    Raises:
        NoStudyError: there is no such file.
        UserError: an older version started the study, or the file cannot be read.
    """
    stored = read_study(study.directory)
    check_version(
        study.directory, stored, "Start another study next to it with variant=NAME. "
        f"(Its identity is {stored.identity}; now it would be {identity}.)",
    )  # fmt: skip
    return stored


def _stored(code: Code) -> StoredCode:
    modules = dict(sorted(code.modules.items()))
    return StoredCode(code.digest, modules, commit())


def _config(study: Study, found: StoredStudy | None = None) -> JsonObject:
    """The configuration to store; of a study that was named by its folder, only the place of the data can be new."""
    if found is not None and study.config.study:
        return found.config | {"dataset": found.config["dataset"] | {"module": study.raw["dataset"]["module"]}}
    return {key: value for key, value in study.raw.items() if key not in NOT_STORED}


def _overrides() -> list[str]:
    """The options of the command line that another loss would need to be comparable."""
    own = {"loss", "preset", "variant", "study", *BOOKKEEPING} - {"results_dir"}
    return [entry for entry in invocation.other_overrides(()) if key_of(entry).partition(".")[0] not in own]


def _check_orphans(study: Study, identity: str, code: str, search: str) -> None:
    """Check that records without a (readable) `study.yaml` belong to this study.

    Raises:
        UserError: one belongs to another configuration, other code or another version.
    """
    for path in layout.all_records(study.directory):
        try:
            record = records.read_record(path)
        except records.CorruptFileError:
            continue  # the command that needs it quarantines it
        found = record.identity or {}
        same = found.get("study") == identity
        if same and found.get("code") == [search if path.name == "ask.json" else code]:
            continue
        reason = "was computed by other code" if same else "was made with another configuration"
        raise UserError(
            f"{study.directory / NAME} is missing or damaged, and {path} {reason}. Restore the file or the old values, "
            "start another study next to it with variant=NAME, or delete the folder to start over."
        )


def _accepted(
    study: Study, command: Command, known: Sequence[StoredCode], code: StoredCode, does: str
) -> list[StoredCode]:
    """The versions of the code whose results may be used together: the stored ones, and the current one if accepted.

    Args:
        study: the study.
        command: the command that runs it.
        known: the stored versions, the oldest first.
        code: the current version.
        does: what the code does, as a verb for the message.

    Raises:
        UserError: the current version is not among the stored ones, there are results, and `accept_code` is not set.
    """
    if code.digest in (entry.digest for entry in known):
        return list(known)
    if not known or all(path.name == "ask.json" for path in layout.all_records(study.directory)):
        return [code]  # nothing is trained yet, and a proposal of other code is made again
    if study.config.accept_code:
        return [*known, code]
    old = known[-1]
    before = f" (at commit {old.commit[:12]})" if old.commit != "unknown" else ""
    changed = ", ".join(Code(code.modules).difference(Code(old.modules)))
    raise UserError(
        f"The code that {does} {study.title} differs from the code that made the results in {study.directory}{before}: "
        f"{changed}. Results of both must not be mixed. Restore the old code, or start another study next to it with "
        "variant=NAME. If you know that the edit changes no number, accept it, and the study records both versions: "
        f"{study.command(command, 'accept_code=true')}"
    )


def _accepted_note(codes: Sequence[StoredCode]) -> str:
    changed = sorted({name for code in codes[1:] for name in Code(code.modules).difference(Code(codes[0].modules))})
    return (
        f"WARNING: this study contains results of {len(codes)} versions of the code, because accept_code=true accepted "
        f"the difference: {', '.join(changed)}. A footnote of the table reports it."
    )


def _changed_versions(before: dict[str, str]) -> list[str]:
    changed = [f"{k} {before[k]} -> {v}" for k, v in versions().items() if before.get(k, v) != v]
    since = "Versions changed since this study was started"
    return [f"{since}: {', '.join(changed)}. Each record holds the versions that made it."] if changed else []


def difference(old: object, new: object, prefix: str = "") -> list[str]:
    """One line for each value that differs between two nested mappings.

    >>> difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    ['  a.c: 2 there, 3 now']

    Args:
        old: the stored value.
        new: the current value.
        prefix: dotted key of both values, with a dot at its end.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [line for key in keys for line in difference(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [f"  {prefix[:-1]}: {old} there, {new} now"]
