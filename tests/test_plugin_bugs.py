"""A bug in a researcher's own loss shows its file and line, and is never taken for a mistake of the user's."""

import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from benchmark.bo import bo
from tests.command_line import run, study_dir, tiny

# Each training runs into the next of the bugs that the environment names.
LOSS = '''
    """A researcher's own loss."""

    import math
    import os

    import torch
    from torch import nn

    from benchmark.losses.proxies import ProxyLoss


    class Buggy(nn.Module):
        def __init__(self, num_classes, embedding_dim, seed, denominator, softmax_scale):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, embeddings, labels):
            for name in os.environ["BUGS"].split():
                try:
                    os.close(os.open(os.path.join(os.environ["BUGGY"], name), os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                getattr(self, f"bug_{name}")(embeddings)
            raise AssertionError("no bug is left")

        def bug_argument(self, embeddings):
            return len(3)  # TypeError

        def bug_array(self, embeddings):
            return 1 if embeddings.detach().numpy() else 0  # ValueError

        def bug_domain(self, embeddings):
            return math.log(-1)  # ValueError

        def bug_file(self, embeddings):
            return open("/nowhere/weights.txt")  # FileNotFoundError

        def bug_index(self, embeddings):
            return [].index(3)  # ValueError

        def bug_number(self, embeddings):
            return int("x")  # ValueError

        def bug_tensor(self, embeddings):
            return 1 if embeddings else 0  # RuntimeError

        def bug_unpack(self, embeddings):
            a, b = [1, 2, 3]  # ValueError


    def base(embeddings, labels, proxies, **settings):
        return embeddings.sum() + (len(3) if os.environ["BUGS"] == "argument" else int("x"))


    class OverProxies(ProxyLoss):
        def __init__(self, num_classes, embedding_dim, seed, denominator, softmax_scale):
            super().__init__(num_classes, embedding_dim, base=base, proxy_init="normal", seed=seed)
'''


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the loss, in a folder where this process finds modules; its workers are told of the folder."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "buggy.py").write_text(textwrap.dedent(LOSS))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("BUGGY", str(folder))
    monkeypatch.delitem(sys.modules, "buggy", raising=False)
    return folder / "buggy.py"


ALL = ("argument", "array", "domain", "file", "index", "number", "tensor", "unpack")


@pytest.mark.parametrize(
    ("bugs", "executor"),
    [
        pytest.param(ALL, ["executor=inline"], id="inline"),
        pytest.param(("file", "unpack"), ["executor=local", "executor.workers=2"], id="local", marks=pytest.mark.slow),
    ],
)
def test_a_bug_in_a_loss_shows_its_file_and_line_and_the_log(
    bugs: tuple[str, ...], executor: list[str], tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUGS", " ".join(bugs))
    loss = ["plugins=[buggy]", "loss.module._target_=buggy.Buggy", "~loss.module.proxy_init"]
    budget = ["trials=1", "executor.retries=0", f"protocol.num_folds={len(bugs)}"]
    ended = tiny(bo, tmp_path / "results", *loss, *budget, *executor)
    printed = ended.out + ended.err
    assert ended.status == 1, "unfinished, and no mistake of the user's"
    logs = sorted((study_dir(tmp_path / "results") / "bo" / "trial_000").glob("fold_*/log"))
    assert len(logs) == len(bugs) and all(str(log) in printed for log in logs)
    lines = source.read_text().splitlines()
    for bug in bugs:
        place = f'{source}", line {lines.index(f"    def bug_{bug}(self, embeddings):") + 2}, in bug_{bug}'
        assert place in printed
        assert sum(place in log.read_text() for log in logs) == 1


@pytest.mark.parametrize(("bug", "kind"), [("argument", TypeError), ("number", ValueError)])
@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.module._target_=buggy.OverProxies", "~loss.module.proxy_init"],
        ["loss=hpl_nca", "loss.module.base._target_=buggy.base", "~loss.module.base.denominator"],
    ],
    ids=["ProxyLoss", "HPL"],
)
def test_a_bug_in_the_base_of_a_proxy_loss_is_not_hidden_by_what_calls_it(
    overrides: list[str], bug: str, kind: type[Exception], tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows before any training, when the loss is built to check its settings."""
    monkeypatch.setenv("BUGS", bug)
    with pytest.raises(kind) as caught:
        tiny(bo, tmp_path / "results", "plugins=[buggy]", *overrides)
    assert str(source) in traceback.extract_tb(caught.value.__traceback__)[-1].filename


def leave(*_: object) -> None:
    sys.exit(3)


def ask_in_vain(*_: object) -> None:
    OmegaConf.create({"known": 1}, flags={"struct": True}).unknown  # noqa: B018 - raises


@pytest.mark.parametrize(("bug", "shown"), [(leave, "sys.exit(3)"), (ask_in_vain, "unknown")])
def test_an_exit_and_a_configuration_error_of_a_plug_in_show_their_line(bug: Callable[..., None], shown: str) -> None:
    with pytest.raises(Exception) as caught:
        run(bug, "dataset=glyphs_small")
    assert not isinstance(caught.value, SystemExit)
    text = "".join(traceback.format_exception(caught.value))
    assert f'{Path(__file__).name}", line' in text and shown in text
