"""The shape of the configuration: which keys exist, and their types. The values are in `conf/`.

Hydra composes the YAML files, `study.py` merges them into these classes, and an unknown key or a wrong type is an error
that names the full key. The keys of a `Node` are checked by the object that is built from it.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

Node = dict[str, Any]  # a part of the configuration with any keys and values
# Keys of a data set that its fingerprint replaces.
PLACES = ("root", "path", "images_root", "check", "expected", "split", "on_duplicates")


@dataclass
class SpaceConfig:
    """One searched hyper-parameter.

    Attributes:
        bounds: lowest and highest value.
        scale: linear or log.
        type: float or int.
        datasets: what replaces these for one data set, by its name: bounds, a mapping with bounds and scale, or a
            number, the value where it is not searched.
        default: value of the first trial with `defaults_first`; None for that of the loss's setting.
    """

    bounds: list[float]
    scale: str
    type: str
    datasets: Node = field(default_factory=dict)
    default: float | None = None


@dataclass
class AdaptedConfig:
    """What a training or a data set replaces of a searched hyper-parameter, see `study.spaces`; None keeps the loss's.

    Attributes:
        bounds: lowest and highest value.
        scale: linear or log.
        default: value of the first trial with `defaults_first`.
    """

    bounds: list[float] | None = None
    scale: str | None = None
    default: float | None = None


@dataclass
class DatasetConfig:
    """Where images come from, and the stopping rule that the protocol attaches to a data set.

    Attributes:
        name: part of the study's folder.
        label: its name in tables.
        description: what its classes and super classes are.
        module: `_target_` node from which it is built.
        trials: number of trials in a search.
        evaluate_every: epochs between two evaluations.
        patience: epochs without improvement before a training stops.
        max_epochs: maximum number of epochs of a training.
        iterations_per_epoch: batches per epoch.
        licence: licence of the images; empty for that in `conf/sources.yaml`.
        sources: files that `make data` downloads, one mapping with the fields of `core.sources.Source` for each; empty
            for those in `conf/sources.yaml`.
        by_hand: instructions for obtaining the data by hand; empty for those in `conf/sources.yaml`.
        images: how image files are resized, cropped and flipped, see `images.crops.Crops`.
        overlaps: what its test classes or images share with sets that networks are pretrained on, by their names in
            `conf/pretraining.yaml`.
        share_design: default of the searcher's `share_design`.
        space: what replaces parts of a loss's search space on it, by the name of the hyper-parameter.
        recall_at: the K of Recall@K under the traditional protocol.
        version_1: loss schedules that a configuration of version 1 held here; they are only part of its identity.
    """

    name: str
    label: str
    description: str
    module: Node
    trials: int
    evaluate_every: int
    patience: int
    max_epochs: int
    iterations_per_epoch: int
    licence: str = ""
    sources: list[Node] = field(default_factory=list)
    by_hand: str = ""
    images: Node = field(default_factory=dict)
    overlaps: dict[str, str] = field(default_factory=dict)
    share_design: bool = False
    space: dict[str, AdaptedConfig] = field(default_factory=dict)
    recall_at: list[int] = field(default_factory=list)
    version_1: Node = field(default_factory=dict)


@dataclass
class BaseConfig:
    """The loss that another one adds a term to.

    Attributes:
        loss: its name.
        setting: for each hyper-parameter that comes from it, its name there. The order of first mention is that of the
            base's search space, all of which occurs.
        times: factors by which values of the base are multiplied, by the name here.
        chosen: identity of the base's study and number of the trial that were taken with `preset=base`.
    """

    loss: str
    setting: dict[str, str]
    times: dict[str, float] = field(default_factory=dict)
    chosen: Node = field(default_factory=dict)


@dataclass
class UnreadConfig:
    """A part of a loss that is switched off.

    Attributes:
        keys: what only that part reads, as keys below `loss`.
        when: the values that switch it off, by key below `loss`; empty if it is always off.
    """

    keys: list[str]
    when: Node = field(default_factory=dict)


@dataclass
class LossConfig:
    """A loss: its constructor, its published setting, its search space, and what it requires of other components.

    Attributes:
        name: part of the study's folder.
        label: its name in tables.
        description: what it computes.
        source: paper and equation.
        module: `_target_` node from which it is built.
        sampler: options of the m-per-class sampler; with `m: null`, batches are drawn from all images regardless of
            their classes; with `_target_`, another sampler.
        setting: published hyper-parameters.
        space: searched hyper-parameters.
        needs: arguments of the constructor that depend on the fold, see `Study.make_loss`.
        optimizer: options of the optimiser of the loss's own parameters, which replace the training's; `groups` holds
            options by prefix of a parameter's name.
        schedule: numbers that depend on the data set, see `schedules`.
        head: options of the head; with `_target_`, another head.
        retrieval: distance used to retrieve its embeddings.
        retrieval_options: options of that distance.
        authors: how its authors optimise it, for protocols with `loss_optimizer: authors`.
        base: the loss that it adds a term to, see `study.base`.
        presets: settings published for a data set, by name and data set; under `trunks`, by name, trunk and data set.
        recipe: its training under the traditional protocol, a file of `conf/recipe/`.
        usual: values that other keys refer to, which the authors' own replace, see `recipes.usual_values`.
        unread: what the loss does not read, by a name for the case, see `study.unused`.
        untrained: whether nothing is trained, so that the study has no search and one run.
    """

    name: str
    label: str
    description: str
    source: str
    module: Node
    sampler: Node
    setting: Node
    space: dict[str, SpaceConfig]
    needs: list[str] = field(default_factory=list)
    optimizer: Node | None = None
    schedule: Node = field(default_factory=dict)
    head: Node = field(default_factory=dict)
    retrieval: str = "cosine"
    retrieval_options: Node = field(default_factory=dict)
    authors: Node = field(default_factory=dict)
    base: BaseConfig | None = None
    presets: dict[str, dict[str, Node]] = field(default_factory=dict)
    recipe: str = "proxy_anchor"
    usual: Node = field(default_factory=dict)
    unread: dict[str, UnreadConfig] = field(default_factory=dict)
    untrained: bool = False


@dataclass
class ModuleConfig:
    """A named plug-in: a trunk, a head or a searcher."""

    name: str
    module: Node


@dataclass
class SearcherConfig(ModuleConfig):
    """A searcher.

    Attributes:
        round: settings that are proposed together, all from the same finished trials.
        asynchronous: propose a setting whenever one of the `round` trials in training ends; such a search cannot be
            reproduced.
        stop_behind: points of MAP@R; a trial whose first folds are further behind the best one is not trained on its
            other folds, see `protocol.racing`. None trains every fold.
        share_design: whether what a method has in common with its base takes the values of the base's initial design;
            None takes the data set's `share_design`.
    """

    round: int = 1
    asynchronous: bool = False
    stop_behind: float | None = None
    share_design: bool | None = False


@dataclass
class TrunkConfig(ModuleConfig):
    """A trunk.

    Attributes:
        width: channels of a trunk that has no published size.
        crop: image side of a trunk that takes only one, in pixels.
        network: name of the network in timm, with the tag of its weights, for a trunk that can be any of them.
        images: options of `dataset.images` that the trunk replaces; a value that is null is timm's for `network`.
        pretrained_on: names of the sets of images that its weights were trained on, see `core.pretraining`; None for
            what the tag of `network` says.
        licence: licence of its weights.
    """

    width: int | None = None
    crop: int | None = None
    network: str = ""
    images: Node = field(default_factory=dict)
    pretrained_on: list[str] | None = field(default_factory=list)
    licence: str = ""


@dataclass
class TrainingConfig:
    """How weights are updated.

    Attributes:
        name: name of the file in `conf/training/`.
        freeze_batchnorm: true freezes the statistics of the trunk's batch norm, "all" also its affine parameters.
        shift: largest random shift of images in memory, in pixels.
        views: None trains the trunk. A number freezes it: its features are computed once for this many views of each
            training image, the one that is evaluated and random ones, and the head is trained on them.
        optimizers: options of the optimisers of trunk, head and loss.
        space: what replaces parts of a loss's search space in it, by the name of the hyper-parameter.
        space_scales: published, as in the loss's file, or log for wide ranges of positive numbers, see `study.spaces`.
        defaults_first: default of the protocol's `defaults_first`.
        searched: hyper-parameters of `loss.setting` that are its own and not the loss's, such as the head's rate.
        recipe: a file of `conf/recipe/` that supplies the options that are null here.
        batch_size: images per batch, in place of the protocol's.
        gradient_chunk: images per pass of the two-pass gradient, see `training.loop.backward`; 0 for the usual one,
            None for the recipe's choice or, without one, the usual one.
        epochs: passes over the training images; None uses the data set's `max_epochs`, in epochs of a fixed number of
            iterations.
        warmup_epochs: epochs at the start in which the trunk is not updated.
        clip: gradient clipping, by `value` or by `norm`.
        decay: schedule of the learning rates, see `lr_schedule.learning_rate_factor`.
        sampler: how the traditional protocol draws the batches of a loss whose own sampler is `{m: 1}`; empty or None
            for shuffled images.
    """

    name: str
    freeze_batchnorm: Any
    shift: int | None
    optimizers: Node
    views: int | None = None
    space: dict[str, AdaptedConfig] = field(default_factory=dict)
    space_scales: str = "published"
    defaults_first: bool = False
    searched: list[str] = field(default_factory=list)
    recipe: str = ""
    batch_size: int | None = None
    gradient_chunk: int | None = None
    epochs: int | None = None
    warmup_epochs: int | None = None
    clip: dict[str, float] | None = None
    decay: Node | None = None
    sampler: Node | None = None


@dataclass
class ProtocolConfig:
    """The constants of an evaluation protocol.

    Attributes:
        failed: what the searcher sees for a trial without a score, see `searchers.ax.Ax`.
        images: how image files are resized, cropped and flipped, unless their data set says otherwise.
        held_out: fraction of the training classes that chooses the epoch under the traditional protocol.
        label_noise: fraction of the training labels that are wrong, see `protocol.label_noise`; the labels of
            validation and test images stay as they are. A training draws them from its seeds, which all losses share.
        story: the command that runs it: `search` (and final_eval) or `traditional`.
        sop_cut: number of training classes of Stanford Online Products; None uses its published lists.
        usual: values that other keys refer to, which a recipe's `protocol` replaces.
    """

    name: str
    trials: int
    batch_size: int
    embedding_dim: int
    pooling: str
    num_folds: int
    fold_rule: str
    iterations_per_epoch: int
    num_runs: int
    confidence: float
    noise: str
    select: str
    defaults_first: bool
    loss_optimizer: str = "searched"
    failed: str | None = None
    images: Node = field(default_factory=dict)
    held_out: float = 0.0
    label_noise: float = 0.0
    story: str = "search"
    sop_cut: int | None = 11317
    usual: Node = field(default_factory=dict)


@dataclass
class ExecutorConfig:
    """Where jobs run: the keys that all executors share; `options` holds those of one executor.

    Attributes:
        name: module of `benchmark/jobs/executors/`.
        workers: number of jobs that run at a time, or `auto`.
        retries: how often a job is restarted after its worker died or hung, or after a defect.
        timeout_minutes: time without progress after which a job counts as hung; None for no limit.
    """

    name: str
    workers: bool | int | float | str
    retries: int
    timeout_minutes: float | None = 30.0

    @property
    def options(self) -> dict[str, object]:
        """The keys that only this executor has, which its own `Options` checks."""
        return {key: value for key, value in vars(self).items() if key not in self.__dataclass_fields__}


@dataclass
class Config:
    """The whole configuration of a command.

    Attributes:
        seed: every random number of a study is derived from it.
        searches: how often a search is repeated, each time with seeds of its own and final runs of its own.
        search: number of the repetition that a study is; 0 for the first, whose seeds are those of a single search.
        descriptor: by what `overlap` compares images, thumbnail or features.
        threshold: cosine from which it reports a pair; None for what copies of training images reach.
    """

    dataset: DatasetConfig
    loss: LossConfig
    trunk: TrunkConfig
    head: ModuleConfig
    training: TrainingConfig
    protocol: ProtocolConfig
    searcher: SearcherConfig
    executor: ExecutorConfig
    seed: int
    trials: int
    threads: int
    device: str
    variant: str
    results_dir: str
    keep: str
    display: str
    searches: int = 1
    search: int = 0
    preset: str = ""
    decode: str = "once"
    image_threads: Any = "auto"
    image_memory: str = "auto"
    checkpoint_seconds: float = 60.0
    levels: bool = True
    unit: str = ""
    corruptions: list[str] = field(default_factory=list)
    a: str = ""
    b: str = ""
    cell: str = ""
    bootstrap: int = 0
    classes: int = 0
    experiment: str = ""
    budget: str = "full"
    measure: bool = True
    figure: list[str] = field(default_factory=list)
    run: int = 0
    projection: str = "tsne"
    model: str = ""
    images: str = ""
    query: str = ""
    embeddings: str = ""
    format: str = ""
    output: str = ""
    folds: str = "concatenated"
    nearest: int = 10
    embed_batch: int = 32
    precision: str = "ieee"
    deterministic: bool = False
    study: str = ""
    accept_code: bool = False
    keep_epochs: list[int] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    tracker: str = "none"
    descriptor: str = "thumbnail"
    threshold: float | None = None


@functools.cache
def schema() -> DictConfig:
    """The configuration's keys and types for OmegaConf; `executor` takes further keys, those of the chosen executor.

    It is shared: merge into a copy of it, as `OmegaConf.merge` does.
    """
    shape = OmegaConf.structured(Config)
    shape.executor = OmegaConf.structured(ExecutorConfig)
    OmegaConf.set_struct(shape.executor, False)
    assert isinstance(shape, DictConfig)
    return shape
