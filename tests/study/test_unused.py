"""A value that was given and that nothing reads is refused, with the reason; whatever is read is not."""

from collections.abc import Callable

import pytest

from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.study.passes import in_passes
from benchmark.study.stored import value_at
from benchmark.study.study import Study
from benchmark.study.unused import check_kept, check_used, is_read
from tests.cases import slow_except
from tests.command_line import commanded

Compose = Callable[..., Study]
T, PLAIN = "protocol=traditional", "protocol.defaults_first=false"
HIST = (T, "loss=hist", "dataset=cub", "trunk=resnet50")
NCA = ("dataset=cub", "loss=proxy_nca", "preset=published")
LOSSES = sorted(path.stem for path in (conf_dir() / "loss").glob("*.yaml") if "unread:" in path.read_text())
NO_COARSE = (T, "loss=hpl_nca", "loss.module.weights=[1,0]")
REFUSED = {
    (T, "loss=hpl_nca", "loss.setting.proxy_lr=0.5"): "multiples of the trunk's. Give loss.authors.lr_multiplier=",
    (T, "loss=hier", "loss.setting.hierarchy_lr=0.5"): "multiples of the trunk's",
    (T, "loss=hist", "loss.setting.distribution_lr=0.5"): "multiples of the trunk's",
    (T, "loss=hist", "loss.setting.hgnn_lr=0.5"): "multiples of the trunk's",
    (T, "loss=margin", "loss.setting.beta_lr=0.5"): "rates from its authors. Give loss.authors.lr=VALUE",
    (T, "loss=margin", "training.optimizers.loss.lr=0.5"): "Give loss.authors.lr=VALUE",
    (T, "searches=3"): "neither a search",
    ("keep_epochs=[1,3]",): "The command traditional reads it",
    (T, "trials=7"): "protocol=traditional has neither a search nor folds",
    (T, "searcher=sobol"): "neither a search",
    (T, "searcher.round=3"): "neither a search",
    (T, "loss.space.scale_0.bounds=[1,2]"): "neither a search",
    (T, "~loss.space.scale_0"): "neither a search",
    (T, "protocol.select=model"): "neither a search",
    (T, "protocol.noise=fold_sem"): "neither a search",
    (T, "protocol.failed=zero"): "neither a search",
    (T, "protocol.defaults_first=true"): "neither a search",
    (T, "protocol.num_folds=3"): "nor folds",
    (T, "protocol.fold_rule=kfold"): "nor folds",
    (T, "dataset.patience=3"): "never stops early",
    (T, "levels=true"): "does not score the levels of a hierarchy. The command final-eval does",
    (T, "dataset.evaluate_every=3"): "scores every epoch",
    (T, "dataset.max_epochs=3"): "training.epochs=30 counts passes",
    (T, "protocol.batch_size=64"): "training.batch_size=128 replaces it. Give training.batch_size",
    (T, "protocol.images.crop=64"): "protocol.images.crop=64 has no effect",
    (T, "dataset=cub", "trunk=vit_small", "protocol.images.crop=64"): "trunk.crop=224",
    (T, "training.optimizers.loss.weight_decay=0"): "Give loss.authors.weight_decay",
    (*HIST, "loss.authors.lr_multiplier=3"): "Give loss.authors.datasets.cub.lr_multiplier",
    (*HIST, "preset=authors", "loss.setting.tau=3"): "preset=authors sets loss.setting.tau=32",
    (T, "dataset=cub", "protocol.sop_cut=100"): "nothing reads it in hpl_pa on cub",
    (T, "dataset=cub", "training.shift=2"): "these are files",
    (PLAIN, "loss.setting.scale_0=3"): "the search chooses scale_0 within loss.space.scale_0. To fix it, add ~loss",
    (PLAIN, "loss.schedule.num_coarse=7"): "the search chooses num_coarse",
    (T, "+training.space.scale_0.scale=log"): "neither a search",
    (*NCA, "loss.space.softmax_scale.scale=log"): "preset=published needs no search",
    (
        "loss=proxy_nca",
        "training.space.tau.scale=linear",
    ): "proxy_nca does not search tau, only proxy_lr, softmax_scale",
    ("+training.epochs=4",): "Give dataset.max_epochs",
    ("+training.batch_size=4",): "Give protocol.batch_size",
    ("+protocol.held_out=0.1",): "folds choose the epoch",
    ("+training.warmup_epochs=1", "dataset.recall_at=[3]"): "dataset.recall_at=[3] has no effect",
    ("trials=5", "protocol.trials=3"): "protocol.trials=3 has no effect",
    ("searcher=sobol", "protocol.noise=fold_sem"): "searcher=sobol",
    ("loss.authors.lr_multiplier=3",): "protocol.loss_optimizer=searched",
    ("loss=hier", "head=linear_fan_out"): "hier brings its own head",
    ("loss=contrastive", "training.optimizers.loss.weight_decay=0"): "the loss has no parameters",
    (*NCA, "trials=4"): "preset=published needs no search",
    (*NO_COARSE, "loss.setting.num_coarse=9"): "loss.module.weights=[1, 0] switches off what reads it",
    (*NO_COARSE, "loss.setting.update_every=9"): "switches off",
    (*NO_COARSE, "loss.setting.scale_1=9"): "switches off",
    (*NO_COARSE, "loss.schedule.warmup_iterations=9"): "switches off",
    (*NO_COARSE, "+loss.module.clustering=gmm"): "switches off",
    (
        T,
        "loss=hpl_nca",
        "+loss.module.clustering=agglomerative",
        "+loss.module.kmeans_restarts=3",
    ): "loss.module.clustering=agglomerative switches off",
    (T, "loss=hpl_nca_gt", "+loss.module.clustering=gmm"): "loss=hpl_nca_gt switches off",
    (
        *HIST,
        "loss.module.distribution_weight=0",
        "loss.setting.tau=3",
    ): "loss.module.distribution_weight=0 switches off",
    (*HIST, "loss.module.relations=none", "loss.setting.alpha=3"): "loss.module.relations=none switches off",
    (*HIST, "loss.module.variances=unit", "loss.module.logvar_clamp=[0,3]"): "loss.module.variances=unit",
    (T, "loss=hier", "loss.setting.regularizer_weight=0", "loss.setting.topk=3"): "loss.module.regularizer_weight=0",
    (T, "loss=snr", "loss.setting.regularizer_weight=0", "loss.module.reg_on=raw"): "loss.module.regularizer_weight=0",
    ("training=frozen", "training.freeze_batchnorm=true"): "training.views=9 freezes the trunk",
    ("loss=xbm", "+loss.module.loss._target_=torch.nn.Identity"): "loss.module.flavour=authors switches off",
    ("loss=xbm", "loss.module.flavour=pml", "loss.schedule.start_iteration=3"): "loss.module.flavour=pml switches off",
}
FAST = [  # one of each reason
    (T, "loss=hpl_nca", "loss.setting.proxy_lr=0.5"), (T, "trials=7"), (T, "~loss.space.scale_0"),
    (T, "protocol.batch_size=64"), (*HIST, "preset=authors", "loss.setting.tau=3"), (PLAIN, "loss.setting.scale_0=3"),
    ("+training.epochs=4",), ("loss=hier", "head=linear_fan_out"), (*NO_COARSE, "loss.setting.num_coarse=9"),
]  # fmt: skip
READ = (
    (T, "loss=hpl_nca", "loss.setting.num_coarse=48", "loss.setting.update_every=10"),
    (T, "training.optimizers.loss.lr=1e-3", "loss.authors.lr_multiplier=3", "protocol.held_out=0.1"),
    (T, "dataset=cub", "protocol.images.crop=64", "dataset.module.root=elsewhere"),
    ("loss.setting.scale_0=3", "~loss.space.scale_0", "loss.schedule.warmup_iterations=7"),
    ("executor.workers=2", "seed=3", "threads=2", "variant=x", "keep=best", "device=cpu", "decode=always"),
    (*NCA, "protocol.num_folds=3", "protocol.confidence=0.9"),
)
MORE_READ = (
    (T, "loss=hpl_nca", "protocol.loss_optimizer=searched", "loss.setting.proxy_lr=0.5"),
    (
        T,
        "keep_epochs=[1,3]",
        "training.epochs=3",
        "training.batch_size=64",
        "training.recipe=hist",
        "protocol.num_runs=3",
    ),
    (T, "dataset=sop", "protocol.sop_cut=11317", "dataset.recall_at=[1,2]", "protocol.pooling=avg"),
    (T, "levels=false"),
    ("levels=true",),
    (*HIST, "loss.authors.datasets.cub.lr_multiplier=3", "preset=authors", "loss.setting.tau=32"),
    ("loss.setting.scale_0=3", "training.defaults_first=true", "searcher.round=2", "trials=3"),
    ("training.space.proxy_lr.bounds=[1e-3,1]", "training.space_scales=published", "loss.space.scale_0.scale=log"),
    ("+loss.module.coarse_update=gradient", "loss.module.weights=[1.0,0.3]", "head=linear_fan_out", "precision=bf16"),
    ("trunk.width=8", "dataset.iterations_per_epoch=2", "dataset.max_epochs=1", "dataset.patience=3"),
    (*NO_COARSE, "loss.setting.scale_0=9"),
    (T, "loss=hpl_nca", "loss.module.weights=[1,0.1]", "+loss.module.kmeans_restarts=3", "loss.setting.scale_1=9"),
    ("loss=xbm", "loss.module.flavour=pml", "+loss.module.loss._target_=torch.nn.Identity"),
    ("loss=xbm", "loss.module.flavour=pml", "loss.setting.pos_margin=0.1", "~loss.space.pos_margin"),
    (
        "loss=xbm",
        "loss.module.flavour=pml",
        "+loss.module.loss._target_=torch.nn.Identity",
        "loss.module.pos_margin=null",
        "loss.module.neg_margin=null",
        "~loss.space.pos_margin",
        "~loss.space.neg_margin",
    ),
    (*HIST, "loss.module.relations=positive", "loss.module.distribution_weight=1", "loss.setting.tau=3"),
)
DEFAULTS = ((T, "trials=1"), (T, "searcher=ax"), (T, "dataset.patience=2"), ("loss.setting.scale_0=32",),
            ("protocol.images.crop=227",), (PLAIN, "training.space.tau.scale=log"))  # fmt: skip


@pytest.mark.parametrize("overrides", slow_except(FAST, REFUSED), ids=" ".join)
def test_a_value_without_effect_is_refused_with_the_reason(overrides: tuple[str, ...], compose_study: Compose) -> None:
    with pytest.raises(UserError) as caught:
        check_used(compose_study(*overrides), overrides, lambda rest: compose_study(*rest))
    message = str(caught.value)
    assert f"{overrides[-1]} has no effect: " in message and REFUSED[overrides] in message
    assert message.splitlines()[-1].startswith("Without it: make ") and overrides[-1] not in message.splitlines()[-1]


@pytest.mark.parametrize("overrides", slow_except(READ, [*READ, *MORE_READ]), ids=" ".join)
def test_a_value_that_is_read_is_accepted_without_composing_again(
    overrides: tuple[str, ...], compose_study: Compose
) -> None:
    check_used(compose_study(*overrides), overrides, lambda rest: pytest.fail("composed again"))


@pytest.mark.parametrize("overrides", DEFAULTS, ids=" ".join)
def test_the_default_value_of_a_key_is_accepted(overrides: tuple[str, ...], compose_study: Compose) -> None:
    check_used(compose_study(*overrides), overrides, lambda rest: compose_study(*rest))


@pytest.mark.parametrize("loss", slow_except(["hist", "hpl_nca", "xbm"], LOSSES))
def test_what_a_loss_lists_as_unread_exists_and_is_read_otherwise(loss: str, compose_study: Compose) -> None:
    for case in compose_study(f"loss={loss}").config.loss.unread.values():
        raw = compose_study(f"loss={loss}").raw
        for key in case.when:
            value_at(raw, f"loss.{key}" if key != "module.clustering" else "loss.module")  # raises if there is none
        for key in case.keys:
            study = compose_study(T, f"loss={loss}")
            assert is_read(study.raw, study.config, f"loss.{key}") or key.startswith("optimizer"), key


def test_a_value_that_the_adaption_to_the_data_replaces_is_refused(compose_study: Compose) -> None:
    overrides = (T, "loss=hpl_nca", "protocol.iterations_per_epoch=50", "seed=3")
    study = compose_study(*overrides)
    adapted = in_passes(study, 1000)
    assert adapted.config.protocol.iterations_per_epoch == 7
    with pytest.raises(UserError, match=r"protocol\.iterations_per_epoch=50 has no effect.*=7"):
        check_kept(study, adapted, overrides)
    check_kept(study, study, overrides)
    check_kept(study, adapted, ("seed=3", "loss=hpl_nca"))


@pytest.mark.parametrize(
    ("verb", "given"),
    [("bo", "loss.setting.scale_0=3"), ("final-eval", "+training.epochs=3"), ("traditional", "trials=7")],
)
def test_every_command_that_trains_refuses_it_before_it_starts(verb: str, given: str) -> None:
    ended = commanded(verb, "dataset=glyphs_small", *([PLAIN] if verb == "bo" else []), given)
    assert ended.status == 2 and f"{given} has no effect" in ended.err
