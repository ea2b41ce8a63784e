"""The examples of the pages about extensions build, and keep the contract of their kind."""

import ast
import itertools
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmark.core.errors import UserError
from benchmark.searchers import Parameter, Trial
from benchmark.study.assemble import build
from benchmark.study.study import Study
from benchmark.training.loop import train_epoch
from tests.docs.pages import DOCS, ROOT, text_of

EXTEND = DOCS / "extend"
FENCED = re.compile(r"^( *)```(python|yaml)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def example(page: str, language: str) -> str:
    """The first example of a page in a language, without its indentation."""
    for indent, found, text in FENCED.findall(text_of(EXTEND / f"{page}.md")):
        if found == language:
            return re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
    raise AssertionError(f"{page} has no example in {language}")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], types.ModuleType]:
    """Make the Python example of a page a module of the given name."""

    def made(page: str, name: str) -> types.ModuleType:
        found = types.ModuleType(name)
        exec(example(page, "python"), found.__dict__)
        monkeypatch.setitem(sys.modules, name, found)
        return found

    return made


def train(study: Study) -> None:
    """Train two steps, which must change every parameter of trunk and head."""
    parts, schedule = build(study, {}, fingerprint=study.make_dataset().fingerprint, kind="trial", index=0, fold=0)
    parameters = [*parts.trunk.parameters(), *parts.head.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    train_epoch(parts, schedule, range(2))
    assert all(not torch.equal(new, old) for new, old in zip(parameters, before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("page", "group"), [("trunk", "trunk"), ("head", "head"), ("sampler", "loss")])
def test_the_example_of_a_component_trains(
    page: str, group: str, module: Callable[[str, str], types.ModuleType], compose_study: Callable[..., Study]
) -> None:
    module(page, f"benchmark.{page}s.my_{page}")
    options = ("dataset=glyphs_small", "trunk.width=8", "protocol.batch_size=16", "dataset.iterations_per_epoch=2",
               "loss=proxy_anchor", "searcher=sobol")  # fmt: skip
    raw = compose_study(*options).raw
    if page == "sampler":
        (node,) = re.findall(r"`sampler: (\{.*?\})`", " ".join(text_of(EXTEND / "sampler.md").split()))
        raw["loss"]["sampler"] = yaml.safe_load(node)
    else:
        raw[group] = yaml.safe_load(example(page, "yaml")) if page == "head" else raw["trunk"] | yaml.safe_load(
            example(page, "yaml"))  # fmt: skip
    train(Study.of(raw))


def test_the_example_of_a_sampler_repeats_each_batch_and_refuses_a_single_class(
    module: Callable[[str, str], types.ModuleType],
) -> None:
    cls = module("sampler", "benchmark.samplers.my_sampler").WithReplacement
    labels = np.arange(10) % 5
    first, again = cls(labels, 4, 7), cls(labels, 4, 7)
    assert all(np.array_equal(first.batch(n), again.batch(n)) for n in (3, 0, 3))
    assert not np.array_equal(first.batch(0), first.batch(1)) and first.batch(0).dtype == np.int64
    with pytest.raises(UserError, match="single class"):
        cls(labels * 0, 4, 7)


def test_the_example_of_a_searcher_is_a_function_of_the_history(
    module: Callable[[str, str], types.ModuleType],
) -> None:
    cls = module("searcher", "benchmark.searchers.uniform").Uniform
    space = {"lr": Parameter((1e-4, 1.0), "log"), "groups": Parameter((2, 9), type="int")}
    history: list[Trial] = []
    for index in range(5):
        setting = cls(space, 3).ask(history)
        assert all(parameter.contains(setting[name]) for name, parameter in space.items())
        history.append(Trial(index, setting, None if index == 2 else float(index)))
    assert cls(space, 3).ask(history[:2]) == history[2].parameters
    assert cls(space, 3).ask(history[:1], [history[1].parameters]) == history[2].parameters
    assert cls(space, 3).best(history) == 4
    different = [trial.parameters for trial in history]
    assert all(one != other for one, other in itertools.combinations(different, 2))


def test_the_example_of_a_searcher_has_the_keys_of_the_others() -> None:
    node = yaml.safe_load(example("searcher", "yaml"))
    assert node.keys() == yaml.safe_load(Path(ROOT / "conf" / "searcher" / "sobol.yaml").read_text("utf-8")).keys()


def test_the_python_of_the_docs_compiles_and_uses_what_the_api_has() -> None:
    source = (ROOT / "benchmark" / "api.py").read_text(encoding="utf-8")
    (public,) = [node.value for node in ast.parse(source).body if isinstance(node, ast.Assign) and "__all__" in
                 ast.unparse(node.targets[0])]  # fmt: skip
    used = set()
    for page in DOCS.rglob("*.md"):
        for indent, language, text in FENCED.findall(text_of(page)):
            if language == "python":
                tree = ast.parse(re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
                used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                         and ast.unparse(node.value) == "api"}  # fmt: skip
    assert {"load_model", "embed", "evaluate"} <= used <= set(ast.literal_eval(public))
