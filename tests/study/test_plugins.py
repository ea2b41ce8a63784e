"""Plug-ins from packages outside the project: named on the command line, found by workers, limited to their kind."""

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.bo import bo
from benchmark.core import invocation
from benchmark.core.errors import UserError
from benchmark.final_eval import final_eval
from benchmark.study import plugins
from benchmark.study.instantiate import build
from benchmark.study.study import Study
from benchmark.tables import tables
from tests.command_line import assert_refused, results_of, run, study_dir, tiny

LOSSES = '''
    """A researcher's own losses."""

    from subprocess import Popen

    import torch
    from torch import nn

    from benchmark.losses.proxies import ProxyLoss


    def mean_cosine(embeddings, labels, proxies, *, scale):
        own = torch.cosine_similarity(embeddings, proxies[labels])
        return scale * (1 - own).mean()


    def helper(vectors):
        return vectors


    class MyLoss(ProxyLoss):
        pass


    class _Private(ProxyLoss):
        pass


    class NoModule:
        pass
'''
LOSS = """
    name: my_loss
    label: My loss
    description: Pulls samples to the proxy of their class.
    source: This test.
    needs: [num_classes, embedding_dim, seed]
    module:
      _target_: lab_of_mine.losses.MyLoss
      base: {_target_: lab_of_mine.losses.mean_cosine, _partial_: true, scale: "${loss.setting.scale}"}
      proxy_init: normal
    sampler: {m: 1}
    optimizer: {lr: "${loss.setting.proxy_lr}"}
    setting: {scale: 16.0, proxy_lr: 0.01}
    space:
      scale: {bounds: [0.01, 100.0], scale: linear, type: float}
      proxy_lr: {bounds: [1.0e-6, 1.0], scale: log, type: float}
"""
PLUG_IN = ("loss=my_loss", "plugins=[lab_of_mine]")


def write_package(folder: Path) -> None:
    (folder / "lab_of_mine/conf/loss").mkdir(parents=True)
    (folder / "lab_of_mine/__init__.py").write_text("from lab_of_mine.losses import MyLoss as Renamed\n")
    (folder / "lab_of_mine/_hidden.py").write_text("from lab_of_mine.losses import MyLoss\n")
    (folder / "lab_of_mine/losses.py").write_text(textwrap.dedent(LOSSES))
    (folder / "lab_of_mine/conf/loss/my_loss.yaml").write_text(textwrap.dedent(LOSS))


@pytest.fixture
def forget() -> Iterator[None]:
    """Leave no trace of imported plug-ins in this process."""
    path = [*sys.path]
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab_of_mine"]:
        del sys.modules[name]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None) -> Path:
    """The working directory, which holds the package `lab_of_mine`; it is not on the module path."""
    folder = tmp_path / "my lab, 'a' $x"
    write_package(folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.usefixtures("no_fsync")
def test_a_loss_of_an_own_package_is_searched_by_its_name(lab: Path, tmp_path: Path) -> None:
    ended = tiny(bo, tmp_path / "results", *PLUG_IN, "trials=1")
    assert ended.status == 0 and len(results_of(study_dir(tmp_path / "results", "my_loss"))) >= 3, ended
    following = ended.out.splitlines()[-1]
    assert following.startswith("Next: make final-eval") and "ARGS=plugins=[lab_of_mine]" in following
    below = run(tables, f"results_dir={tmp_path / 'results'}").out  # names the plug-in as text, and imports nothing
    assert re.search(
        r"2 of 2 runs are missing: 0, 1; make final-eval STUDY=\S+ 'ARGS=plugins=\[lab_of_mine\]'", below
    ), below


def test_a_file_of_the_package_that_is_no_yaml_is_named_when_spaces_are_checked(lab: Path, tmp_path: Path) -> None:
    (lab / "lab_of_mine/conf/loss/other.yaml").write_bytes(b"name: \xff")
    ended = tiny(bo, tmp_path / "results", *PLUG_IN, "+dataset.space.proxy_rl.bounds=[1,2]")
    assert_refused(ended, "other.yaml is not valid YAML", "Correct the file.")


@pytest.mark.slow
def test_workers_find_the_package_where_the_command_did_and_only_if_it_names_it(lab: Path, tmp_path: Path) -> None:
    for executor in ("inline", "local"):
        ended = tiny(bo, tmp_path / executor, *PLUG_IN, f"executor={executor}", "executor.workers=1")
        assert ended.status == 0, ended
    results = [results_of(study_dir(tmp_path / executor, "my_loss")) for executor in ("inline", "local")]
    assert results[0] == results[1] and len(results[0]) >= 6
    again = (f"results_dir={tmp_path / 'local'}", "display=plain", "executor.workers=1")
    skipped = run(final_eval, *again)
    assert skipped.status == 2 and "Skipped" in skipped.out and "plugins=[lab_of_mine]" in skipped.out, skipped
    ended = run(final_eval, *again, "plugins=[lab_of_mine]")
    assert ended.status == 0 and "my_loss" in ended.out, ended


def test_a_study_is_the_same_study_whatever_plug_ins_are_named(compose_study: Callable[..., Study], lab: Path) -> None:
    study = compose_study("loss=proxy_nca")
    other = Study.of(study.raw | {"plugins": ["lab_of_mine"]})
    assert other.config.plugins == ["lab_of_mine"] and study.config.plugins == []
    assert other.identity("data") == study.identity("data") and other.directory == study.directory


@pytest.mark.parametrize(
    ("option", "phrases"),
    [
        ("plugins=lab_of_mine", ("plugins=lab_of_mine: give a list", "ARGS=plugins=[my_package]")),
        ("plugins=[3]", ("plugins=[3]: give a list",)),
        ("plugins=[nowhere]", ("no package or module nowhere", "Install it", "PYTHONPATH")),
        ("plugins=[lab_of_mine.nowhere]", ("no package or module lab_of_mine.nowhere",)),
        ("plugins=['/my/lab']", ("not by a path",)),
        ("plugins=['../lab']", ("not by a path",)),
        ("plugins=[_lab]", ("does not start with an underscore",)),
        ("plugins=[lab._private]", ("does not start with an underscore",)),
        ("plugins=[os]", ("os is a package of Python",)),
        ("plugins=[torch.fx]", ("torch is a package of Python or of this project",)),
        ("plugins=[benchmark.core]", ("benchmark is a package of Python or of this project",)),
        ("plugins=[a],[b]", ("give one list in brackets",)),
        ("plugins=[a", ("'plugins=[a' cannot be read",)),
    ],
)
def test_a_name_that_is_not_a_package_is_refused(
    option: str, phrases: tuple[str, ...], lab: Path, tmp_path: Path
) -> None:
    assert_refused(tiny(bo, tmp_path / "results", option), *phrases)
    assert not (tmp_path / "results").exists()


def test_its_files_are_choices_with_messages_and_help(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(tiny(bo, tmp_path, "loss=my_loss"), "no loss 'my_loss'")
    assert_refused(tiny(bo, tmp_path, "loss=my_los", PLUG_IN[1]), "Did you mean 'my_loss'?", "ms_miner, my_loss,")
    assert_refused(tiny(bo, tmp_path, "loss=3", PLUG_IN[1]), "ms_miner, my_loss,")
    assert_refused(tiny(bo, tmp_path, *PLUG_IN, "loss.setting.scal=1"), "Did you mean 'loss.setting.scale'?")
    monkeypatch.setenv(invocation.FORM, "make")  # `main` sets it
    monkeypatch.setattr(sys, "argv", ["dmlbench", "bo", "--help", PLUG_IN[1]])
    assert main() == 0 and " my_loss," in capsys.readouterr().out


def test_a_file_with_the_name_of_another_one_is_refused(lab: Path, tmp_path: Path) -> None:
    taken = lab / "lab_of_mine/conf/loss/hpl_pa.yaml"
    taken.write_text("name: hpl_pa\n")
    assert_refused(tiny(bo, tmp_path, *PLUG_IN), str(taken), "has the same name as", "Rename it")


def test_a_mistake_in_a_yaml_file_is_named_by_its_line(lab: Path, tmp_path: Path) -> None:
    path = lab / "lab_of_mine/conf/loss/my_loss.yaml"
    path.write_text("name: my_loss\nlabel: My loss: the best\n")
    assert_refused(tiny(bo, tmp_path, *PLUG_IN), f"{path}:2: mapping values are not allowed here. Correct this line")


def test_its_recipes_are_found(compose_study: Callable[..., Study], lab: Path) -> None:
    (lab / "lab_of_mine/conf/recipe").mkdir()
    (lab / "lab_of_mine/conf/recipe/short.yaml").write_text("epochs: 3\n")
    study = compose_study("loss=proxy_nca")
    raw = study.raw | {"training": study.raw["training"] | {"recipe": "short"}}
    assert Study.of(raw | {"plugins": ["lab_of_mine"]}).config.training.epochs == 3
    with pytest.raises(UserError, match=r"training.recipe='short': allowed are"):
        Study.of(raw)


def test_only_its_classes_of_the_right_kind_are_built(lab: Path) -> None:
    sys.path.append(str(lab))
    base = {"_target_": "lab_of_mine.losses.mean_cosine", "_partial_": True, "scale": 1.0}
    offered = {"num_classes": 3, "embedding_dim": 4, "seed": 0}

    def make(target: str, kind: str = "loss", base: dict[str, object] = base) -> object:
        node = {"_target_": f"lab_of_mine.{target}", "base": base, "proxy_init": "normal"}
        return build(node, kind, plugins=["lab_of_mine"], **offered)  # type: ignore[arg-type]

    assert type(make("losses.MyLoss")) is type(make("Renamed"))
    for target, kind in [
        ("losses._Private", "loss"),
        ("_hidden.MyLoss", "loss"),
        ("losses.Popen", "loss"),
        ("losses.ProxyLoss", "loss"),  # ours, under another name
        ("losses.NoModule", "loss"),
        ("losses.MyLoss", "optimizer"),
        ("losses.MyLoss", "sampler"),
        ("losses.mean_cosine", "loss"),
        ("losses.torch.load", "loss"),
        ("losses.MyLoss.load_state_dict", "loss"),
    ]:
        with pytest.raises(UserError, match=r"is not allowed|cannot be found"):
            make(target, kind)
    with pytest.raises(UserError, match="its first parameters have these names"):
        make("losses.MyLoss", base=base | {"_target_": "lab_of_mine.losses.helper"})
    with pytest.raises(UserError, match=r"has no MyLos\. Did you mean 'MyLoss'\?"):
        make("losses.MyLos")
    with pytest.raises(UserError, match="is not allowed for a loss"):
        build({"_target_": "lab_of_mine_too.losses.MyLoss"}, "loss", plugins=["lab_of_mine"])


def test_a_module_without_a_folder_can_be_named_too(lab: Path) -> None:
    (lab / "lab_of_mine_alone.py").touch()
    assert plugins.folders(["lab_of_mine_alone", "lab_of_mine.losses"]) == [str(lab)] * 2
    assert len(plugins.conf_dirs(["lab_of_mine_alone"])) == 1
