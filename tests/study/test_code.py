"""Which edits of this project, and of plug-ins, change the code of a study."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.core import code as files
from benchmark.core.errors import UserError
from benchmark.core.paths import PACKAGE_DIR, conf_dir
from benchmark.study.code import COMPUTES, search_code, training_code
from benchmark.study.study import Study

Compose = Callable[..., Study]
Edit = Callable[..., None]
# The modules of `benchmark/study` that compute no part of a result.
DESCRIBES = (
    "arguments",
    "base",  # finds a setting, which the identity covers
    "cli",
    "code",
    "command",
    "config",  # its defaults are part of the configuration, which the identity covers
    "contents",
    "identity",
    "kept_models",  # finds weights files
    "layout",
    "lengths",  # adapts configurations, which the identity covers
    "ledger",
    "lost_trials",
    "messages",
    "model_files",  # reads and writes weights that were trained
    "opening",
    "plugins",  # only finds packages; the modules in them are part of the digest
    "preflight",
    "prepare",
    "selected",
    "spaces",  # adapts configurations, which the identity covers
    "stored",
    "unused",  # chooses what the identity covers of a setting
    "version_1",  # converts configurations, which the identity covers
)


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Edit:
    """Edit modules of the project, as far as digests can see: `edit("bo.py")` appends a statement."""
    edited: dict[str, str] = {}
    read = files._read
    monkeypatch.setattr(files, "_read", lambda path, size, mtime_ns: read(edited.get(path, path), size, mtime_ns))

    def add(*names: str, old: str = "", new: str = "") -> None:
        for name in names:
            text = (PACKAGE_DIR / name).read_text(encoding="utf-8")
            assert old in text
            copy = tmp_path / f"edited_{len(edited)}.py"
            copy.write_text(text.replace(old, new) if old else f"{text}\nadded = 1\n", encoding="utf-8")
            edited[str(PACKAGE_DIR / name)] = str(copy)

    return add


def targets(node: object) -> Iterator[str]:
    """Every `_target_` in what a YAML file holds."""
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "_target_" and value)
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from targets(inner)


def with_part(study: Study, group: str, body: dict[str, Any]) -> Study:
    """The study with a file of `conf/GROUP` in place of its own, as far as its nodes go."""
    part = getattr(study.config, group)
    keys = {key: body[key] for key in ("module", "sampler", "head", "optimizer", "optimizers") if key in body}
    return dataclasses.replace(
        study, config=dataclasses.replace(study.config, **{group: dataclasses.replace(part, **keys)})
    )


def names(code: files.Code) -> set[str]:
    return {name.removeprefix("benchmark.") for name in code.modules}


def test_every_module_of_the_study_either_computes_or_describes() -> None:
    listed = sorted(COMPUTES + DESCRIBES)
    assert listed == sorted(p.stem for p in (PACKAGE_DIR / "study").glob("*.py") if p.stem != "__init__")


def test_an_edit_of_commands_executors_reports_messages_or_searchers_does_not_change_the_training_code(
    compose_study: Compose, edit: Edit
) -> None:
    study = compose_study("loss=hpl_pa")
    before = training_code(study)
    others = {"jobs", "report", "core", "perf", "searchers"}
    folders = [p for p in PACKAGE_DIR.rglob("*.py") if p.relative_to(PACKAGE_DIR).parts[0] in others]
    described = [PACKAGE_DIR / "study" / f"{name}.py" for name in DESCRIBES]
    paths = [str(p.relative_to(PACKAGE_DIR)) for p in (*PACKAGE_DIR.glob("*.py"), *folders, *described)]
    assert {"bo.py", "tables.py", "report/formats.py", "jobs/executors/local.py", "study/messages.py"} <= set(paths)
    edit(*paths)
    assert training_code(study) == before


def test_an_edit_of_what_trains_and_scores_changes_every_study(compose_study: Compose, edit: Edit) -> None:
    studies = [compose_study("loss=hpl_pa"), compose_study("loss=contrastive", "dataset=cub")]
    before = [training_code(study) for study in studies]
    paths = [f"study/{name}.py" for name in COMPUTES]
    paths += ["training/loop.py", "protocol/retrieval.py", "protocol/folds.py", "protocol/statistics.py"]
    paths += ["samplers/random.py", "samplers/m_per_class.py", "images/in_memory.py"]
    for path in paths:
        edit(path)
    modules = sorted(f"benchmark.{path.removesuffix('.py').replace('/', '.')}" for path in paths)
    assert [training_code(study).difference(old) for study, old in zip(studies, before, strict=True)] == [modules] * 2


def test_an_edit_of_a_loss_changes_the_studies_of_this_loss_only(compose_study: Compose, edit: Edit) -> None:
    hpl, proxy_anchor = compose_study("loss=hpl_pa"), compose_study("loss=proxy_anchor")
    before = training_code(hpl), training_code(proxy_anchor)
    edit("losses/hpl.py", old="weight", new="wait")
    assert training_code(hpl).difference(before[0]) == ["benchmark.losses.hpl"]
    assert training_code(proxy_anchor) == before[1]
    edit("losses/proxy_anchor.py")
    assert training_code(hpl).difference(before[0]) == ["benchmark.losses.hpl", "benchmark.losses.proxy_anchor"]
    assert training_code(proxy_anchor).difference(before[1]) == ["benchmark.losses.proxy_anchor"]


def test_a_comment_in_the_training_loop_changes_no_study(compose_study: Compose, edit: Edit) -> None:
    study = compose_study("loss=hpl_pa")
    before = training_code(study)
    edit("training/loop.py", old="import math\n", new="# numbers\n\nimport math\n")
    assert training_code(study) == before


PARTS = [(group, p) for group in ("loss", "trunk", "head", "dataset") for p in (conf_dir() / group).glob("*.yaml")]


def test_every_component_of_the_configuration_is_in_the_code_of_its_study(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa")
    seen = set()
    for group, path in PARTS:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        ours = {target.rpartition(".")[0] for target in targets(body) if target.startswith("benchmark.")}
        code = training_code(with_part(study, group, body))
        assert ours <= set(code.modules), path
        assert {name.split(".")[0] for name in code.modules} == {"benchmark"}, path  # libraries go by their versions
        seen |= ours
    assert len(seen) >= 30, "the test reads too little"


@pytest.mark.parametrize(("group", "key"), [("loss", "sampler"), ("loss", "optimizer"), ("training", "optimizers")])
def test_samplers_and_optimizers_count(compose_study: Compose, group: str, key: str) -> None:
    study = compose_study("loss=proxy_anchor")
    node = {"_target_": "benchmark.training.curves.Other", "groups": [{"_target_": "benchmark.losses.hist.Inner"}]}
    changed = with_part(study, group, {key: node})
    added = {"benchmark.training.curves (added)", "benchmark.losses.hist (added)"}
    assert added <= set(training_code(changed).difference(training_code(study)))


def test_the_code_of_a_plug_in_counts_where_the_study_names_the_package(
    compose_study: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "plug_in_for_digests"
    package.mkdir()
    loss = "import helpers_for_digests, numpy\nfrom .parts import scale"
    for name, text in {"__init__": "", "loss": loss, "parts": "scale = 1", "other": ""}.items():
        (package / f"{name}.py").write_text(text)
    for name in ("helpers_for_digests", "unused_for_digests", "numpy"):  # next to the package; numpy is another one
        (tmp_path / f"{name}.py").touch()
    study = compose_study("loss=contrastive")
    inner = {"_target_": "plug_in_for_digests.loss.Distance"}
    study = with_part(study, "loss", {"module": study.config.loss.module | {"distance": inner}})
    named = dataclasses.replace(study, raw=study.raw | {"plugins": ["plug_in_for_digests"]})
    added = {"plug_in_for_digests", "plug_in_for_digests.loss", "plug_in_for_digests.parts", "helpers_for_digests"}
    assert training_code(named).modules.keys() - added == training_code(study).modules.keys()
    (package / "loss.py").unlink()
    with pytest.raises(UserError, match=r"plug_in_for_digests\.loss"):
        training_code(named)


def test_the_code_of_a_search_is_its_searcher_and_nothing_that_trains(compose_study: Compose, edit: Edit) -> None:
    ax, sobol = compose_study("searcher=ax"), compose_study("searcher=sobol")
    assert names(search_code(ax)) == {"searchers", "searchers.ax", "protocol", "protocol.seeds"}
    assert names(search_code(sobol)) == {"searchers", "searchers.sobol", "protocol", "protocol.seeds"}
    before = search_code(ax), search_code(sobol)
    edit("training/loop.py", "losses/hpl.py", "study/study.py", "bo.py", "searchers/sobol.py")
    assert search_code(ax) == before[0]
    assert search_code(sobol).difference(before[1]) == ["benchmark.searchers.sobol"]


def test_the_code_of_a_study_is_read_without_torch() -> None:
    check = "import sys, benchmark.study.code; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=PACKAGE_DIR.parent, check=True)
