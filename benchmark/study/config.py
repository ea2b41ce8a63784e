"""The shape of the configuration: which keys exist, of which type. Values live in `conf/`, never here.

Hydra composes the YAML files, `study.py` merges them into these classes, and an unknown key or a wrong type is an
error with the key's full name. `Any` marks what a plug-in's own constructor checks.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

PLACES = ("root", "path", "images_root", "check", "expected")  # of a data set: its fingerprint says what is there


@dataclass
class SpaceConfig:
    """One searched hyper-parameter; `datasets` has the bounds of data sets for which others were published."""

    bounds: list[float]
    scale: str
    type: str
    datasets: dict[str, Any] = field(default_factory=dict)


@dataclass
class DatasetConfig:
    """Where images come from, and the stopping rule that the protocol attaches to a data set.

    Attributes:
        licence: of the pictures.
        sources: files that `make data` fetches: `url`, `file`, `bytes`, `md5`, `sha256`, and for an archive `unpack`
            with the most `members` and `bytes` that it may have; `room` is what all of it takes on disk, in bytes.
        by_hand: what to do where nothing can be fetched.
        images: of picture files: how they are resized, cropped and flipped, see `images.crops.Crops`.
        recall_at: the K of Recall@K under the customary protocol.
    """

    name: str
    label: str
    description: str
    module: dict[str, Any]
    trials: int
    evaluate_every: int
    patience: int
    max_epochs: int
    iterations_per_epoch: int
    hpl: dict[str, Any]
    xbm: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    sources: list[dict[str, Any]] = field(default_factory=list)
    by_hand: str = ""
    images: dict[str, Any] = field(default_factory=dict)
    recall_at: list[int] = field(default_factory=list)


@dataclass
class LossConfig:
    """A loss: its constructor, its published setting, the space in which it is tuned, and what it asks of other parts.

    Attributes:
        needs: what the constructor is given beside `module`.
        sampler: over the arguments of the m-per-class sampler; with `_target_`, another sampler.
        optimizer: of the loss's own parameters, over the training's; `groups` differ by the start of a name.
        head: over the arguments of the head; with `_target_`, another head.
        retrieval: the distance by which its embeddings are searched, with `retrieval_options`.
        authors: how its authors optimise it, for protocols with `loss_optimizer: authors`.
        presets: settings published for a data set, by name and data set.
        recipe: whose training it gets under the customary protocol, a file of `conf/recipe/`.
    """

    name: str
    label: str
    description: str
    source: str
    module: dict[str, Any]
    sampler: dict[str, Any]
    setting: dict[str, Any]
    space: dict[str, SpaceConfig]
    needs: list[str] = field(default_factory=list)
    optimizer: dict[str, Any] | None = None
    head: dict[str, Any] = field(default_factory=dict)
    retrieval: str = "cosine"
    retrieval_options: dict[str, Any] = field(default_factory=dict)
    authors: dict[str, Any] = field(default_factory=dict)
    presets: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    recipe: str = "proxy_anchor"


@dataclass
class ModuleConfig:
    """A named plug-in: a trunk, a head or a searcher."""

    name: str
    module: dict[str, Any]


@dataclass
class SearcherConfig(ModuleConfig):
    """A searcher.

    Attributes:
        round: settings that are proposed at a time, all from the same finished trials.
        asynchronous: propose the next setting as soon as one of so many is done; such a search cannot be repeated.
    """

    round: int = 1
    asynchronous: bool = False


@dataclass
class TrunkConfig(ModuleConfig):
    """A trunk.

    Attributes:
        width: the one customary knob of those that have no published size.
        crop: side of the images that it takes, for one that takes no other.
    """

    width: int | None = None
    crop: int | None = None


@dataclass
class TrainingConfig:
    """How weights are moved.

    Attributes:
        freeze_batchnorm: of the trunk: true, the statistics; "all", the affine parameters as well.
        shift: random shift of images in memory, in pixels.
        recipe: a file of `conf/recipe/` that fills what is unset here.
        batch_size: over the protocol's.
        epochs: passes over the training images; unset, the data set's epochs of a number of iterations.
        warmup_epochs: at the start, in which the trunk stays as it is.
        clip: of gradients: `value` or `norm`.
        decay: of learning rates, see `decay.learning_rate_factor`.
    """

    name: str
    freeze_batchnorm: Any
    shift: int | None
    optimizers: dict[str, Any]
    recipe: str = ""
    batch_size: int | None = None
    epochs: int | None = None
    warmup_epochs: int | None = None
    clip: dict[str, float] | None = None
    decay: dict[str, Any] | None = None


@dataclass
class ProtocolConfig:
    """The constants of an evaluation protocol.

    Attributes:
        images: what data sets of picture files take as theirs.
        held_out: share of the training classes that chooses the epoch under the customary protocol.
        story: which one runs it, search (with final_eval) or traditional.
        sop_cut: how many classes of Stanford Online Products are trained on; None for those of its lists.
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
    images: dict[str, Any] = field(default_factory=dict)
    held_out: float = 0.0
    story: str = "search"
    sop_cut: int | None = 11317


@dataclass
class ExecutorConfig:
    """Where jobs run: the keys of every executor. Each executor has others, see `options`.

    Attributes:
        name: module of `benchmark/jobs/executors/`.
        workers: number of jobs at a time, or `auto`.
        retries: how often a job whose worker died or hung, or that failed through a defect, is started again.
        timeout_minutes: a job without a batch for so long hangs; None: never.
    """

    name: str
    workers: bool | int | float | str
    retries: int
    timeout_minutes: float | None = 30.0

    @property
    def options(self) -> dict[str, object]:
        """The keys of this executor alone, which its own `Options` checks."""
        return {key: value for key, value in vars(self).items() if key not in self.__dataclass_fields__}


@dataclass
class Config:
    """Everything a story is told."""

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
    preset: str = ""
    decode: str = "once"
    image_threads: Any = "auto"
    unit: str = ""


def schema() -> DictConfig:
    """The configuration's keys and types for OmegaConf; `executor` takes further keys, those of the chosen executor."""
    shape = OmegaConf.structured(Config)
    shape.executor = OmegaConf.structured(ExecutorConfig)
    OmegaConf.set_struct(shape.executor, False)
    assert isinstance(shape, DictConfig)
    return shape
