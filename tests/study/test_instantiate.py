"""A node builds what its kind allows and nothing else; what a plug-in refuses is the user's to fix, not its defects."""

import functools
import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from torch import nn

from benchmark.core.errors import UserError
from benchmark.study import instantiate
from benchmark.study.instantiate import KINDS, NodeKind, build
from benchmark.study.preflight import check_parts
from benchmark.study.study import Study

BROKEN = "benchmark.losses.broken.Broken"
LIBRARY = "pytorch_metric_learning"
OUTER = {
    "dataset": "benchmark.datasets.folder.listing",
    "trunk": "benchmark.trunks.small_conv.SmallConv",
    "head": "benchmark.heads.linear.Linear",
    "loss": "benchmark.losses.full_precision.FullPrecision",
    "sampler": "benchmark.samplers.random.Random",
    "searcher": "benchmark.searchers.sobol.Sobol",
    "optimizer": "torch.optim.SGD",
}  # a target of each kind
# Targets that no kind may build, neither as the node itself nor inside it.
HOSTILE = (
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "importlib.import_module",
    "canary.run",  # a module on the path that would leave a trace if it were imported
    "functools.partial",
    "pathlib.Path",
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "torch.hub.download_url_to_file",
    "torch.classes.load_library",
    "torch.ops.load_library",
    "torch.package.PackageImporter",
    "torch.package.importer.sys_importer.import_module",
    "torch._dynamo.utils.import_submodule",
    "torch._utils_internal.get_file_path",
    "torch.fx.GraphModule",
    "torch.jit.CompilationUnit",
    "torch.jit.load",
    "torch.compile",
    "torch.nn.modules.module.Module",
    "torch.nn.modules.linear.Linear",
    "torch.nn.functional.relu",
    "torch.nn.init.zeros_",
    "torch.nn.utils.skip_init",
    "torch.nn.Module",
    "torch.nn.Parameter",
    "torch.nn.Linear.forward",
    "torch.nn.factory_kwargs",
    "torch.nn._reduction.get_enum",
    "torch.utils.cpp_extension.load_inline",
    "torch.utils.model_zoo.load_url",
    "torch.utils.data.DataLoader",
    "torch.optim.Optimizer",
    "torch.optim.lr_scheduler.StepLR",
    "torch.optim.sgd.SGD",
    "torch.optim.sgd.torch.save",
    f"{LIBRARY}.utils.common_functions.download_file",
    f"{LIBRARY}.utils.common_functions.save_model",
    f"{LIBRARY}.utils.common_functions.load_model",
    f"{LIBRARY}.utils.common_functions.os.system",
    f"{LIBRARY}.utils.inference.InferenceModel",
    f"{LIBRARY}.losses.mixins",
    f"{LIBRARY}.losses.EmbeddingRegularizerMixin",
    f"{LIBRARY}.losses.ntxent_loss.NTXentLoss",
    f"{LIBRARY}.losses.ntxent_loss.torch.save",
    f"{LIBRARY}.testers.GlobalEmbeddingSpaceTester",
    f"{LIBRARY}.trainers.MetricLossOnly",
    "torchvision.models.resnet18",
    "torchvision.models.get_model",
    "torchvision.datasets.CIFAR10",
    "timm.create_model",
    "benchmark.bo.bo",
    "benchmark.core.download.download",
    "benchmark.core.records.write_whole",
    "benchmark.training.checkpoint.read_state",
    "benchmark.jobs.executors.local.Local",
    "benchmark.study.instantiate.build",
    "benchmark.losses.Loss",
    "benchmark.losses.hpl.torch",
    "benchmark.losses.hpl.torch.save",
    "benchmark.losses.hpl.CountingLoss",
    "benchmark.losses.hpl.HPL.load_state_dict",
    "benchmark.losses.hpl._centres",
    "benchmark.losses._private.Loss",
    "benchmark.losses.__init__.Loss",
    "benchmark.losses..hpl.HPL",
    "benchmark.losses.clustering.kmeans",
    "benchmark.losses.checks.check_positive",
    "benchmark.losses.numerics.cosine_similarity",
    "benchmark.losses.proxies.initial_proxies",
    "benchmark.losses.proxies.try_base",
    "benchmark.losses.xbm.contrastive",
    "benchmark.trunks.weights.find",
    "benchmark.trunks.weights.read",
    "benchmark.trunks.weights.Published",
    "benchmark.trunks.published.timm_network",
    "benchmark.trunks.small_conv.nn",
    "benchmark.trunks.small_conv.stage_channels",
    "benchmark.samplers.Sampler",
    "benchmark.samplers.m_per_class.np",
    "benchmark.searchers.Parameter",
    "benchmark.searchers.sobol.value_at",
    "benchmark.datasets.Split",
    "benchmark.datasets.mat_file.read_mat",
    "benchmark.datasets.mat_file.subprocess.run",
    "benchmark.datasets.listing.Listing",
    "benchmark.datasets.listing.halves",
    "benchmark.datasets.dataset_files.read_text",
    "benchmark.datasets.glyph_cache.HalvesCache",
    "benchmark.datasets.image_check.check_images",
    "eval",
    "",
    ".",
    "benchmark",
    "torch.nn.",
    "torch.nn.Linear()",
    "torch.nn.Linear;os.system",
)
DEFECTS: dict[str, Callable[[], object]] = {
    "too many values to unpack": lambda: (lambda a, b: None)(*[1, 2, 3]),
    "invalid literal for int": lambda: int("x"),
    "not in list": lambda: [].index(3),
}


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module `benchmark.losses.broken` with a loss whose constructor runs `work`."""

    class Broken(nn.Module):
        def __init__(self, proxy_lr: float = 1.0) -> None:
            super().__init__()
            module.work()

    module = types.ModuleType("benchmark.losses.broken")
    Broken.__module__ = module.__name__
    module.Broken = Broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_a_defect_in_the_constructor_of_a_plug_in_passes_through(
    defect: Callable[[], object], plug_in: types.ModuleType
) -> None:
    plug_in.work = defect  # type: ignore[attr-defined]
    with pytest.raises((TypeError, ValueError)) as caught:
        build({"_target_": BROKEN}, "loss")
    assert caught.traceback[-1].path.samefile(__file__)


def test_a_defect_in_a_loss_passes_through_the_checks_before_a_search(
    plug_in: types.ModuleType, compose_study: Callable[..., Study]
) -> None:
    plug_in.work = DEFECTS["invalid literal for int"]  # type: ignore[attr-defined]
    study = compose_study("dataset=glyphs_small", "trunk.width=8", "loss=proxy_nca")
    module = {"_target_": BROKEN}
    raw = study.raw | {"loss": study.raw["loss"] | {"module": module, "needs": []}}
    with pytest.raises(ValueError, match="invalid literal"):
        check_parts(Study.of(raw))


def test_a_setting_that_a_plug_in_refuses_is_reported_with_its_place_in_the_space(
    plug_in: types.ModuleType, compose_study: Callable[..., Study]
) -> None:
    def refuse() -> None:
        raise UserError("proxy_lr is too high")

    plug_in.work = refuse  # type: ignore[attr-defined]
    study = compose_study("dataset=glyphs_small", "trunk.width=8", "loss=proxy_nca")
    module = {"_target_": BROKEN}
    raw = study.raw | {"loss": study.raw["loss"] | {"module": module, "needs": []}}
    with pytest.raises(UserError, match=r"proxy_nca cannot be built at its setting.*100 training classes.*too high"):
        check_parts(Study.of(raw))


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the names of the modules that are imported to find a target."""
    names: list[str] = []

    def import_module(name: str) -> types.ModuleType:
        names.append(name)
        return importlib.import_module(name)

    monkeypatch.setattr(instantiate, "importlib", types.SimpleNamespace(import_module=import_module))
    return names


def around(*inner: object, kind: str = "loss") -> dict[str, Any]:
    """A node of a kind with other nodes inside, in a list and a mapping."""
    return {"_target_": OUTER[kind], "first": inner[0], "others": [{"deep": node} for node in inner[1:]]}


@pytest.mark.parametrize("target", HOSTILE)
def test_a_target_that_is_not_a_plug_in_is_refused_before_anything_is_built_or_imported(
    target: str, plug_in: types.ModuleType, imported: list[str], canary: Path
) -> None:
    built: list[str] = []
    plug_in.work = lambda: built.append("canary")  # type: ignore[attr-defined]
    hostile = {"_target_": target, "command": f"touch {canary}", "name": "canary"}
    for kind in get_args(NodeKind):
        for node in (hostile, around(hostile, kind=kind)):
            with pytest.raises(UserError, match=r"is not allowed|cannot be found"):
                build(node, kind)
    for node in (around({"_target_": BROKEN}, hostile), around({"_target_": BROKEN}, hostile | {"_partial_": True})):
        with pytest.raises(UserError, match=r"is not allowed|cannot be found"):
            build(node, "loss")
    assert not built and not canary.exists() and "canary" not in sys.modules
    places = [*filter(None, (place.folder for place in KINDS.values())), f"{LIBRARY}.", "torch"]
    assert {name for name in imported if name.startswith("torch")} <= {"torch.nn", "torch.optim"}
    assert not [name for name in imported if not name.startswith(tuple(places))]


def test_a_module_that_may_be_imported_is_only_searched_for_classes_of_the_kind() -> None:
    for kind in get_args(NodeKind):
        for other, target in OUTER.items():
            if other != kind:
                with pytest.raises(UserError, match=rf"is not allowed for an? {kind}\."):
                    build({"_target_": target}, kind)
    with pytest.raises(UserError, match="is not allowed for a loss"):
        build({"_target_": "pytorch_metric_learning.miners.HDCMiner"}, "loss")  # only inside a loss
    with pytest.raises(UserError, match="The module of an optimizer cannot contain other nodes"):
        build({"_target_": "torch.optim.SGD", "lr": {"_target_": "torch.optim.SGD"}}, "optimizer", params=[])


def test_every_part_of_the_library_may_be_inside_a_loss() -> None:
    wrapped = {
        "_target_": f"{LIBRARY}.losses.CrossBatchMemory",
        "loss": {
            "_target_": f"{LIBRARY}.losses.ContrastiveLoss",
            "distance": {"_target_": f"{LIBRARY}.distances.SNRDistance"},
            "reducer": {"_target_": f"{LIBRARY}.reducers.MeanReducer"},
            "embedding_regularizer": {"_target_": f"{LIBRARY}.regularizers.LpRegularizer"},
        },
        "miner": {"_target_": f"{LIBRARY}.miners.PairMarginMiner"},
    }
    loss = build(wrapped, "loss", embedding_size=4)
    built = (loss.loss.distance, loss.loss.embedding_regularizer, loss.miner)
    assert [type(part).__name__ for part in built] == ["SNRDistance", "LpRegularizer", "PairMarginMiner"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1, "widht": 2}, "argument 'widht'"),
        ({"_target_": "torch.nn.ReLU", "_args_": ["x"]}, "no key _args_"),
        ({"_target_": "torch.nn.ReLU", "_recursive_": False}, "no key _recursive_"),
        ({"_target_": "torch.nn.ReLU", "_convert_": "all"}, "no key _convert_"),
        ({"_partial_": True, "x": 1}, "no key _partial_"),
        ({"_target_": "torch.nn.ReLU", "_partial_": "yes"}, "_partial_='yes' of torch.nn.ReLU: give true or false"),
        ({"_target_": 3}, "_target_=3: give the dotted name"),
        ({"_target_": None}, "_target_=None: give the dotted name"),
        ({"_target_": ["os.system"]}, "give the dotted name"),
        ({"_target_": "benchmark.losses.cosface.cosface", "scale": 1.0}, "Add _partial_: true to the node"),
        (functools.reduce(lambda inner, _: [inner], range(20), []), "nested more than 12 levels deep"),
        (functools.reduce(lambda inner, _: {"x": inner}, range(20), {}), "nested more than 12 levels deep"),
    ],
)
def test_a_mistake_deep_inside_a_node_is_refused_before_its_neighbour_is_built(
    wrong: object, message: str, plug_in: types.ModuleType
) -> None:
    plug_in.work = lambda: pytest.fail("built")  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=message):
        build(around({"_target_": BROKEN}, wrong), "loss")


def test_only_a_node_inside_another_may_be_partial() -> None:
    with pytest.raises(UserError, match="only a node inside another one may be partial"):
        build({"_target_": OUTER["head"], "_partial_": True}, "head")


def test_a_refused_target_is_answered_with_all_names_or_the_closest_one() -> None:
    with pytest.raises(UserError, match=r"Allowed: benchmark\.samplers\.m_per_class\.MPerClass, .*random\.Random\."):
        build({"_target_": "os.system"}, "sampler")
    with pytest.raises(UserError, match=r"Did you mean 'benchmark\.losses\.hpl\.HPL'\?"):
        build({"_target_": "losses.hpl.HPL"}, "loss")
    with pytest.raises(UserError, match=r"torch\.optim has no Adma\. Did you mean 'Adamax'\?"):
        build({"_target_": "torch.optim.Adma"}, "optimizer", params=[])
    with pytest.raises(UserError, match=r"If my_lab is a package of your own, name it: .*plugins=\[my_lab\]"):
        build({"_target_": "my_lab.losses.Loss"}, "loss")


def test_arguments_that_a_target_does_not_take_are_the_user_s() -> None:
    with pytest.raises(UserError, match=r"Linear cannot be built: .*'widht'.*It takes in_features"):
        build({"_target_": "benchmark.heads.linear.Linear", "widht": 2}, "head", in_features=1)


def test_settings_that_a_library_refuses_are_the_user_s() -> None:
    with pytest.raises(UserError, match=r"torch\.nn\.Linear does not accept in_features=1, out_features='x'"):
        build(
            {"_target_": OUTER["loss"], "loss": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": "x"}},
            "loss",
        )
    distance = {"_target_": "pytorch_metric_learning.distances.LpDistance"}
    node = {"_target_": "pytorch_metric_learning.losses.CosFaceLoss", "num_classes": 3, "distance": distance}
    with pytest.raises(UserError, match="CosFaceLoss does not accept"):
        build(node, "loss", embedding_size=4)


def test_an_import_that_fails_inside_a_plug_in_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Check its spelling"):
        build({"_target_": "benchmark.losses.no_such_module.X"}, "loss")
    monkeypatch.setattr("importlib.import_module", _import_of_nothing)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        build({"_target_": "benchmark.losses.cosface.CosFace"}, "loss")


def _import_of_nothing(name: str) -> types.ModuleType:
    raise ModuleNotFoundError("No module named 'no_such_library'", name="no_such_library")
