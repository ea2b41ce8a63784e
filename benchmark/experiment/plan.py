"""What an experiment will train, and what that costs: trainings, images, hours and disk space.

Hours are extrapolated from a few timed batches of one study for each data set and trunk, see `measure`. Where training
stops early, the number of epochs is not known in advance: the lower end of the range is a training that never improves,
the upper end one of `max_epochs` epochs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmark.core.console import counting
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.wording import counted, human_size, human_time
from benchmark.experiment import state
from benchmark.experiment.selected import Selected, StudyOf
from benchmark.jobs.placement import num_workers
from benchmark.study import recipes
from benchmark.study.cli import study_of
from benchmark.study.config import Config
from benchmark.study.preflight import check_values
from benchmark.study.spaces import described
from benchmark.study.study import Study
from benchmark.study.unused import check_used, searches

if TYPE_CHECKING:  # PyTorch takes seconds to import
    from benchmark.experiment.measure import Speed

SHOWN_ELSEWHERE = ("dataset", "loss", "preset", "variant", "results_dir")  # options that a row shows in other columns
Range = tuple[float, float]


@dataclass(frozen=True)
class Planned:
    """A study of the plan.

    Attributes:
        study: the study.
        composed: its configuration; None if it cannot run.
        state: `finished`, `started` or `missing`, or what is wrong with it.
        done: number of its trainings that are done.
    """

    study: StudyOf
    composed: Study | None
    state: str
    done: int

    @property
    def is_finished(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.state == state.FINISHED

    @property
    def left(self) -> int:
        """Number of trainings that are left."""
        return self.study.num_trainings - self.done


@dataclass
class Plan:
    """The plan of an experiment on one data set.

    Attributes:
        dataset: name of the data set.
        studies: its studies, in the order of the table.
        missing: what this machine lacks.
        speeds: the measured speed by trunk.
        unmeasured: why there is no measured speed.
    """

    dataset: str
    studies: list[Planned]
    missing: list[str]
    speeds: "dict[str, Speed]" = field(default_factory=dict)
    unmeasured: str = ""


def make_plan(chosen: Selected, dataset: str, measured: bool) -> Plan:
    """Compose every study of an experiment on a data set, and look what of it is done.

    Args:
        chosen: the experiment.
        dataset: one of its data sets.
        measured: whether to time a few batches.
    """
    studies, found, show = chosen.studies[dataset], list[Planned](), counting(f"{dataset}: studies checked")
    for number, study in enumerate(studies, 1):
        found.append(planned(study))
        show(number, len(studies))
    plan = Plan(dataset, found, chosen.missing(dataset))
    if not measured:
        plan.unmeasured = "measure=false"
    elif absent := [text for text in plan.missing if not text.startswith("weights")]:
        plan.unmeasured = f"not on this machine: {', '.join(absent)}"
    elif not all(one.is_finished for one in plan.studies):
        _measure(plan)
    return plan


def planned(study: StudyOf) -> Planned:
    """A study of an experiment, composed, with its state.

    Args:
        study: the study.
    """
    found, done = state.progress(study)
    try:
        composed = study_of(study.overrides)
        check_values(composed, composed.config.protocol.story)
        check_used(composed, study.overrides, study_of)
    except UserError as error:
        return Planned(study, None, f"cannot run: {' '.join(str(error).split())}", done)
    if done and (other := next(filter(None, map(state.other_study, composed.repetitions())), "")):
        return Planned(study, composed, other, 0)
    return Planned(study, composed, found, done)


def _measure(plan: Plan) -> None:
    """Measure one study for each trunk; whatever prevents it is the reason why there is no estimate."""
    from benchmark.experiment.measure import measure

    for one in plan.studies:
        if one.composed is None or one.is_finished or (trunk := one.composed.config.trunk.name) in plan.speeds:
            continue
        if one.composed.config.loss.untrained:
            continue
        try:
            plan.speeds[trunk] = measure(one.composed)
        except UserError as error:
            plan.unmeasured = str(error)


# -- what a training costs --------------------------------------------------------------------------------------------


def num_held_out(config: Config, images_of_classes: Sequence[int]) -> int:
    """Number of images of the last classes, which a study of the traditional protocol does not train on.

    Args:
        config: the study's configuration.
        images_of_classes: number of images of each class of the training half, by ascending id of the class.
    """
    if config.protocol.story != "traditional":
        return 0
    num_classes = len(images_of_classes)
    return sum(images_of_classes[num_classes - round(config.protocol.held_out * num_classes) :])


def trained_images(config: Config, num_images: int | None) -> Range | None:
    """Least and most images that one training of a study sees; None if the number of images is not known.

    Args:
        config: the study's configuration.
        num_images: number of images that it trains on, without those that are held out.
    """
    if config.loss.untrained:
        return 0, 0
    batch = config.training.batch_size or config.protocol.batch_size
    if config.protocol.story == "traditional" and config.training.epochs:  # of whole batches
        return None if num_images is None else (config.training.epochs * (num_images // batch * batch),) * 2
    per_epoch = config.protocol.iterations_per_epoch * batch
    most = config.dataset.max_epochs * per_epoch
    return (most, most) if config.protocol.story == "traditional" else (_least_epochs(config) * per_epoch, most)


def _least_epochs(config: Config) -> int:
    """Epochs of a training that never improves: the first evaluation after more than `patience` epochs."""
    every = config.dataset.evaluate_every
    return min(config.dataset.max_epochs, every * math.ceil((config.dataset.patience + 1) / every))


def evaluated_images(config: Config, num_images: int, held_out: int = 0) -> Range:
    """Least and most images that are embedded to score one training.

    Under the traditional protocol, these are the test half and the held-out classes after every epoch.

    Args:
        config: the study's configuration.
        num_images: number of images in the training half, which stands for that in the test half.
        held_out: number of images that are held out.
    """
    if config.protocol.story == "traditional":
        return (((config.training.epochs or config.dataset.max_epochs) + 1) * (num_images + held_out),) * 2
    validation, every = num_images / config.protocol.num_folds, config.dataset.evaluate_every
    least, most = _least_epochs(config) / every, config.dataset.max_epochs / every
    return (least + 1) * validation, (most + 1) * validation


def seconds_left(one: Planned, speed: "Speed") -> Range:
    """Least and most compute seconds of what is left of a study.

    Args:
        one: the study, which could be composed.
        speed: what was measured with its trunk.
    """
    assert one.composed is not None
    config = one.composed.config
    held_out = num_held_out(config, speed.images_of_classes)
    trained = trained_images(config, speed.num_images - held_out) or (0, 0)
    evaluated = evaluated_images(config, speed.num_images, held_out)
    low, high = (one.left * (t / speed.trained + e / speed.evaluated) for t, e in zip(trained, evaluated, strict=True))
    return low, high


# -- as text ----------------------------------------------------------------------------------------------------------

COLUMNS = ("study", "folder", "state", "trainings", "images each", "compute", "options")


def table(plan: Plan) -> list[tuple[str, ...]]:
    """One row for each study, in the order of `COLUMNS`; the options are those that differ between studies.

    Args:
        plan: the plan of an experiment on a data set.
    """
    rows: list[tuple[str, ...]] = []
    all_options = [one.study.member.options for one in plan.studies]
    common = {key for key, value in all_options[0].items() if all(each.get(key) == value for each in all_options)}
    for one in plan.studies:
        member, config = one.study.member, one.composed.config if one.composed else None
        speed = plan.speeds.get(config.trunk.name) if config else None
        images = trained_images(config, _num_images(config, speed)) if config else None
        cost = between(seconds_left(one, speed), human_time) if speed and one.left else "-" if not one.left else "?"
        own = [
            text for text, key in zip(member.overrides, member.options, strict=True)
            if key not in common and key not in SHOWN_ELSEWHERE
        ]  # fmt: skip
        label = member.label or (config.loss.label if config else member.loss)
        rows.append((
            label, f"{one.study.directory.parent.name}/{one.study.name}", one.state,
            f"{one.done:,} of {one.study.num_trainings:,}",
            between(images, lambda count: f"{count:,.0f}") if images else "?", cost, " ".join(own) or "-",
        ))  # fmt: skip
    return rows


def recipes_table(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """How each study trains: the headings, and one row for each study that could be composed."""
    composed = {one.study.name: one.composed for one in plan.studies if one.composed}
    found = {name: recipes.composed_training(study.config).cells() for name, study in composed.items()}
    keys = list(dict.fromkeys(key for values in found.values() for key in values))
    return ["study", *keys], [[name, *(values.get(key, "-") for key in keys)] for name, values in found.items()]


def spaces(plan: Plan) -> Iterator[str]:
    """One line for each study that is searched: its name and its search space."""
    searched = {one.study.name: one.composed for one in plan.studies if one.composed and searches(one.composed.config)}
    for name, study in searched.items():
        yield f"{name}: {described(study.make_space())}"


def _num_images(config: Config, speed: "Speed | None") -> int | None:
    """Number of images that a study trains on; on average over classes if its data set is not here."""
    if speed:
        return speed.num_images - num_held_out(config, speed.images_of_classes)
    expected = config.dataset.module.get("expected", {})
    count = expected.get("trainval", {}).get("images") if isinstance(expected, dict) else None
    share = config.protocol.held_out if config.protocol.story == "traditional" else 0
    return round(int(count) * (1 - share)) if count else None


def between(values: Range, text: Callable[[float], str]) -> str:
    """Two numbers as text, or one if they are equal.

    >>> between((60, 7200), human_time)
    '60 s to 2.0 h'
    """
    low, high = map(text, values)
    return low if low == high else f"{low} to {high}"


def summary(plan: Plan) -> Iterator[str]:
    """Sentences about the plan: what is missing, time, disk space.

    Args:
        plan: its plan on a data set.
    """
    left, total = sum(one.left for one in plan.studies), sum(one.study.num_trainings for one in plan.studies)
    yield f"Trainings: {total - left:,} of {total:,} are done."
    if plan.missing:
        data = [text for text in plan.missing if text.startswith("data set")]
        advice = f" Run {command('data', {'dataset': plan.dataset})}" if data else ""
        yield f"Not on this machine: {', '.join(plan.missing)}.{advice}"
    if left and plan.unmeasured:
        yield f"Time: unmeasured ({plan.unmeasured.removesuffix('.')})."
    elif left:
        yield from _time(plan)
    yield from _disk(plan)


def _time(plan: Plan) -> Iterator[str]:
    costs = [
        seconds_left(one, plan.speeds[one.composed.config.trunk.name])
        for one in plan.studies
        if one.composed and one.left and one.composed.config.trunk.name in plan.speeds
    ]
    low, high = (sum(cost[end] for cost in costs) for end in (0, 1))
    config = next(one.composed.config for one in plan.studies if one.composed)
    workers = num_workers(config)
    for trunk, speed in plan.speeds.items():
        yield (
            f"Measured: {trunk} on {speed.device}, batches of {speed.batch_size}: {speed.trained:,.0f} images/s in "
            f"training, {speed.evaluated:,.0f} in evaluation without the search for neighbours."
        )
    alone, together = between((low, high), human_time), between((low / workers, high / workers), human_time)
    yield f"Time: {alone} of one worker, {together} with {counted(workers, 'worker')} that are always busy."


def _disk(plan: Plan) -> Iterator[str]:
    """A sentence about disk space: the cache of decoded images, kept weights and embeddings."""
    parts: list[str] = []
    for one in plan.studies[:1]:
        if one.composed and one.composed.config.dataset.images and one.composed.config.decode == "once":
            config = one.composed.config
            expected, side = config.dataset.module.get("expected") or {}, config.dataset.images.get("short_side", 256)
            if count := expected.get("images"):
                size = count * side * side * 4 / 3 * 3  # RGB, of an image that is a third longer than wide
                parts.append(f"cache of decoded images about {human_size(size)}")
    weights = embeddings = 0.0
    for one in plan.studies:
        if one.composed is None:
            continue
        config = one.composed.config
        runs = config.protocol.num_runs * one.study.num_searches
        folds = 1 if config.protocol.story == "traditional" else config.protocol.num_folds
        if config.keep != "none" and config.trunk.name in plan.speeds:
            kept_runs = one.study.num_searches if config.keep == "first" else runs
            weights += 4 * plan.speeds[config.trunk.name].num_weights * kept_runs * folds
        count = (config.dataset.module.get("expected") or {}).get("test", {}).get("images")
        if count and config.protocol.story != "traditional":
            embeddings += 2 * count * config.protocol.embedding_dim * folds * runs
    parts += [f"kept weights {human_size(weights)}"] * bool(weights)
    parts += [f"embeddings of the test images {human_size(embeddings)}"] * bool(embeddings)
    yield f"Disk: {'; '.join(parts) or 'records and logs only, a few megabytes'}."


def heading(chosen: Selected, dataset: str, studies: Sequence[Planned]) -> str:
    """The lines above the plan of a data set."""
    experiment = chosen.experiment
    about = [chosen.caption(dataset), experiment.paper, experiment.description, chosen.remark]
    given = [f"Options for all studies: {' '.join(chosen.extra)}"] * bool(chosen.extra)
    what = f"{experiment.name} on {dataset}: {counted(len(studies), 'study', 'studies')}"
    return "\n  ".join([what, *filter(None, about), *given])
