"""The setting of a method at the optimum of its base: what the search of the base chose, under the method's own names.

A method that adds a term to another loss, its *base*, has more hyper-parameters, and its own search may be luckier or
unluckier than the base's. `preset=base` leaves that out: the method is trained without any search, at the setting that
the finished search of its base chose, with the published values of whatever only the method has. The loss's YAML says
which of its hyper-parameters are the base's (`base`).
"""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import invocation
from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.study import layout
from benchmark.study.command import command_for, command_for_folder, results_dir_of
from benchmark.study.config import BaseConfig
from benchmark.study.opening import difference
from benchmark.study.stored import NAME, StoredStudy, check_version, read_study
from benchmark.study.study import Study

PRESET = "base"
OF_SEARCH = ("noise", "failed", "select", "defaults_first")  # keys of the protocol that only the searcher reads


@dataclass(frozen=True)
class AtBase:
    """A study at its base's optimum.

    Attributes:
        study: the study, with the setting that follows from the base's choice.
        folder: folder of the base's study.
        trial: number of the base's trial that was chosen.
        fingerprint: identifies the base's data.
    """

    study: Study
    folder: Path
    trial: int
    fingerprint: str

    def check_data(self, fingerprint: str) -> None:
        """Check that the base was searched on the data that the study is trained on.

        Args:
            fingerprint: identifies the study's data.

        Raises:
            UserError: it was searched on other data.
        """
        if fingerprint != self.fingerprint:
            raise UserError(f"The search in {self.folder} used other data than those on this machine: search again.")


def at_base(study: Study) -> AtBase:
    """The study at the setting that the finished search of its base chose.

    Args:
        study: a study with `preset=base`.

    Raises:
        UserError: there is no finished search of the base with this configuration, a hyper-parameter of the base was
            given as well, or the study was trained at another choice of its base.
    """
    base = study.config.loss.base
    assert base is not None  # see `recipes.preset_setting`
    names = base.setting | {name: name for name in study.config.training.searched}
    given = set(map(invocation.key_of, invocation.other_overrides(())))
    if twice := [key for key in (f"loss.setting.{name}" for name in names) if key in given]:
        raise UserError(f"{twice[0]} is given, but preset=base takes it from {base.loss}. Leave out one of them.")
    folder, stored = _find(study, base)
    choice = layout.read_choice(
        folder, stored.expected, stored.facts.select, stored.trials, command_for_folder(folder, "bo")
    )
    values = stored.facts.setting | choice.setting
    if absent := [name for name in names.values() if name not in values]:
        raise UserError(f"{folder} has no hyper-parameter {absent[0]}, which {study.config.loss.name} takes from it.")
    setting = {own: values[name] * base.times[own] if own in base.times else values[name]
               for own, name in names.items()}  # fmt: skip
    raw = copy.deepcopy(study.raw)
    raw["loss"]["base"]["chosen"] = {"study": stored.identity, "trial": choice.trial}
    found = AtBase(Study.of(raw, setting), folder, choice.trial, stored.fingerprint)
    _check_unchanged(found)
    return found


def _find(study: Study, base: BaseConfig) -> tuple[Path, StoredStudy]:
    """The base's study in the neighbourhood of a study: of the same variant, else without one.

    Raises:
        UserError: there is none, it has another configuration outside its loss, or there are several.
    """
    c = study.config
    known = [(folder, stored) for folder, stored in _neighbours(study.directory.parent)
             if (stored.facts.loss, stored.facts.preset, stored.facts.search) == (base.loss, "", c.search)]  # fmt: skip
    own = [entry for entry in known if entry[1].facts.variant == c.variant]
    found = own or [entry for entry in known if not entry[1].facts.variant]
    if not found:
        raise UserError(
            f"{study.title}: preset=base takes the setting that a search of {base.loss} chose, and there is none in "
            f"{study.directory.parent}. Run {_search_of_base(study, base)} first."
        )
    if len(found) > 1:
        names = ", ".join(str(folder) for folder, _ in found)
        raise UserError(f"{study.title}: preset=base finds several searches of {base.loss}: {names}. Move all but one.")
    folder, stored = found[0]
    check_version(folder, stored, f"Move it elsewhere, and run {_search_of_base(study, base)}.")
    if differing := difference(_outside_loss(stored.science), _outside_loss(study.science(stored.fingerprint))):
        raise UserError(
            f"{study.title}: preset=base needs a search of {base.loss} with the same options, but {folder} has "
            "others:\n" + "\n".join(differing)
        )
    return folder, stored


def _neighbours(group: Path) -> Iterator[tuple[Path, StoredStudy]]:
    """Yield the studies in a folder that can be read."""
    for path in sorted(group.glob(f"*/{NAME}")):
        with contextlib.suppress(UserError):
            yield path.parent, read_study(path.parent)


def _outside_loss(science: JsonObject) -> JsonObject:
    """What identifies a study, without its loss and what only its search reads, which a preset replaces."""
    rest = {key: value for key, value in copy.deepcopy(science).items() if key not in ("loss", "searcher")}
    rest["protocol"] = {key: value for key, value in rest["protocol"].items() if key not in OF_SEARCH}
    return rest


def _search_of_base(study: Study, base: BaseConfig) -> str:
    """The command that searches the base with the study's options."""
    try:
        return read_study(study.directory).command_for_loss("bo", base.loss, results_dir_of(study.directory))
    except UserError:
        return command_for(dataclasses.replace(study.config, preset=""), "bo", loss=base.loss)


def _check_unchanged(found: AtBase) -> None:
    """Check that a study that exists was trained at the choice that its base has now.

    Raises:
        UserError: its base has another choice now.
    """
    folder = found.study.directory
    try:
        before = read_study(folder).facts.setting
    except UserError:  # there is none, or the command reports it
        return
    now = found.study.config.loss.setting
    if lines := difference({name: before.get(name) for name in now}, dict(now)):
        raise UserError(
            f"{folder} was trained at another choice of its base; {found.folder} now has trial_{found.trial:03d}:\n"
            + "\n".join(lines) + "\nKeep both side by side with variant=NAME, or delete the folder to train again."
        )  # fmt: skip
