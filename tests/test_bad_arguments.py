"""Arguments that a command cannot use are refused with a sentence, before data are read and anything is written."""

import copy
import functools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError

from benchmark.__main__ import VERBS
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.study import arguments, cli, spaces
from benchmark.study.config import schema
from benchmark.study.preflight import check_space, check_values
from benchmark.study.study import Study
from tests import command_line
from tests.cases import slow_except
from tests.command_line import assert_refused, commanded, on_tiny, study_dir

BASE = ("dataset=glyphs_small", "loss=contrastive")
ROWS = ("Traceback", "full_key", "object_type", "Structured config", "usage: benchmark", "[--hydra-help]")


def refused(folder: Path, arguments: list[str], *phrases: str, verb: str = "bo") -> None:
    """The command is refused with these phrases, without the text of a library, and writes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = commanded(verb, *arguments)
    assert_refused(ended, *phrases)
    assert not [text for text in ROWS if text in ended.err], ended.err
    assert len(ended.err) < 2000
    assert not list(folder.iterdir()), "nothing may be written"


CHOICES = {
    "loss=null": ("There is no loss 'null'", "Allowed: anti_collapse_proxy_anchor, "),
    "loss=": ("There is no loss ''", "Allowed: anti_collapse_proxy_anchor, "),
    "loss=HPL_PA": ("no loss 'HPL_PA'", "Did you mean 'hpl_pa'?"), "loss=hpl-pa": ("Did you mean 'hpl_pa'?",),
    "loss=Proxy-Anchor": ("Did you mean 'proxy_anchor'?",), "loss='hpl pa'": ("Did you mean 'hpl_pa'?",),
    "loss=hpl_pa.yaml": ("no loss 'hpl_pa.yaml'", "Did you mean 'hpl_pa'?"), "loss=true": ("no loss 'true'",),
    "loss=3": ("no loss '3'",), "loss=1.5": ("no loss '1.5'",), "loss=../trunk/resnet50": ("There is no loss",),
    "loss=schedule/hpl": ("There is no loss",), "loss={a:1}": ("give one loss", "--multirun loss="),
    "loss=[]": ("give one loss", "Allowed: anti_collapse_proxy_anchor, "),
    "dataset=[cub,sop]": ("give one dataset", "--multirun dataset=cub,sop"),
    "dataset=CUB": ("Did you mean 'cub'?",),
    "dataset=/data/birds": ("no dataset '/data/birds'", "Allowed: cars196, csv"),
    "trunk=resnet": ("Did you mean 'resnet50'?",), "trunk=ResNet-50": ("Did you mean 'resnet50'?",),
    "executor=gpu": ("no executor 'gpu'", "Allowed: inline, local"),
    "searcher=none": ("no searcher 'none'", "ax, sobol"),
    "protocol=2020": ("no protocol '2020'", "mlrc_2020"), "head=null": ("no head 'null'", "linear"),
    "training={lr:1}": ("give one training", "from_scratch"), "~loss": ("loss cannot be deleted", "loss=VALUE"),
    "loss=hpl_pa,proxy_nc": ("no loss 'proxy_nc'", "Did you mean 'proxy_nca'?"),
    "loss='hpl_pa,proxy_nca'": ("no loss 'hpl_pa,proxy_nca'", "--multirun loss=hpl_pa,proxy_nca"),
    "trunk=a,b": ("has several values", "--multirun trunk=a,b"),
    "loss@head=hpl_pa": ("write the key without @head",), "loss=${trunk.name}": ("no loss '${trunk.name}'",),
}  # fmt: skip


@pytest.mark.bad_input("command line", "choices")
@pytest.mark.parametrize("argument", CHOICES, ids=ascii)
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(argument: str, tmp_path: Path) -> None:
    refused(tmp_path, [argument], *CHOICES[argument])


@pytest.fixture(scope="module")
def base(compose_study_in: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study that is changed in one value; nothing is written for it."""
    return compose_study_in(tmp_path_factory.getbasetemp() / "results", *BASE)


@functools.cache
def untyped(study: Study) -> DictConfig:
    """The configuration of a study without its types; not to be changed."""
    return OmegaConf.create(study.raw)


def changed(study: Study, override: str) -> Study:
    """A study with a changed value, as Hydra would compose it."""
    found = OverridesParser.create().parse_override(override)
    raw = copy.deepcopy(untyped(study))
    OmegaConf.update(raw, found.key_or_group, found.value(), force_add=True)
    return Study.of(raw)


BIG = 10**9
NUMBERS = [
    "seed=-1", "seed=1.5", "seed=nan", "seed=true", "seed=abc", f"seed={10**22}", "seed=0x10", "seed=null", "trials=0",
    "trials=-5", f"trials={BIG}", "trials=1e9", "trials=inf", "protocol.num_folds=1", f"protocol.num_folds={10**5}",
    f"protocol.batch_size={BIG}", "protocol.batch_size=0", "protocol.batch_size=1", "protocol.batch_size=7",
    "protocol.num_runs=0", f"protocol.num_runs={BIG}", "protocol.embedding_dim=0", f"protocol.embedding_dim={BIG}",
    "protocol.iterations_per_epoch=0", f"protocol.iterations_per_epoch={10**12}", "protocol.confidence=0",
    "protocol.confidence=95", "protocol.held_out=1", "protocol.held_out=-0.1", "dataset.max_epochs=0",
    f"dataset.max_epochs={BIG}", "dataset.evaluate_every=0", "dataset.patience=-1", "dataset.trials=0",
    "dataset.recall_at=[0]", "dataset.recall_at=[1.5]", "threads=0", f"threads={BIG}", "trunk.width=0",
    "trunk.width=-8", "protocol.label_noise=1",
    "trunk.width=null", f"trunk.width={BIG}", "trunk.crop=0", "training.shift=-1", f"training.epochs={10**12}",
    "training.epochs=0", "training.warmup_epochs=-1", "training.batch_size=0", "training.clip={value:-1}",
    "training.gradient_chunk=-1", "training.gradient_chunk=x",
    "training.clip={norm:0}", "training.clip={value:1,norm:1}", "training.decay={kind:step,every:0,factor:0.1}",
    "training.decay={kind:step,every:x,factor:0.1}", "training.decay={kind:milestones,epochs:[a],factor:0.1}",
    "training.decay={kind:step,every:5,factor:-1}", "training.decay={kind:linear}",
    "training.optimizers.trunk.lr=-1", "training.optimizers.head.lr=abc", "training.optimizers.loss.lr=-0.1",
    "training.optimizers.trunk.lr=nan", "training.optimizers.trunk.lr=inf", "training.optimizers.trunk.lr=true",
    "training.optimizers.trunk.weight_decay=-1", "training.optimizers.trunk.momentum=-0.9",
    "training.optimizers.trunk=null", "training.optimizers.trunk=adam", "loss.optimizer.lr=-1", "loss.optimizer.lr=x",
    "loss.optimizer.weight_decay=-1", "loss.sampler.m=0", "loss.sampler.m=x", "loss.sampler.m=1000",
    "executor.workers=1000000000", "executor.retries=-1", "executor.timeout_minutes=0", "executor.timeout_minutes=-5",
    "executor.timeout_minutes=x", "searcher.round=0", f"searcher.round={BIG}", "image_threads=-1", "image_threads=1.5",
    "checkpoint_seconds=-1", "checkpoint_seconds=often",
    "image_threads=many", f"image_threads={BIG}", "accept_code=maybe",
]  # fmt: skip


FAST_NUMBERS = [  # one of each kind of value, in each part of the configuration
    "seed=-1", "seed=1.5", "seed=abc", f"seed={10**22}", "trials=0", f"trials={BIG}", "trials=inf",
    "protocol.num_folds=1", "protocol.batch_size=7", "protocol.confidence=95", "dataset.patience=-1",
    "dataset.recall_at=[1.5]", "threads=0", "trunk.width=null", "training.gradient_chunk=x", "training.clip={value:-1}",
    "training.decay={kind:linear}", "training.optimizers.trunk.lr=nan", "loss.optimizer.lr=x", "loss.sampler.m=1000",
    "executor.timeout_minutes=0", "searcher.round=0", "image_threads=many", "accept_code=maybe",
]  # fmt: skip


@pytest.mark.bad_input("command line", "numbers")
@pytest.mark.parametrize("override", slow_except(FAST_NUMBERS, NUMBERS))
def test_a_number_out_of_range_is_refused_with_its_key_and_the_range(override: str, base: Study) -> None:
    with pytest.raises(UserError) as error:
        check_values(changed(base, override))
    text, key = str(error.value), override.partition("=")[0]
    assert key.removeprefix("dataset.") in text and len(text) < 500
    assert not [row for row in ROWS if row in text], text
    words = ("must be", "give ", "allowed are", "needs a", "must lie", "above 0", "finite numbers", "is invalid")
    assert any(word in text.lower() for word in words), text


ENDS = ("seed=0", "trials=1", "training.optimizers.trunk.lr=0", "protocol.batch_size=8", "protocol.num_folds=2",
        "training.clip={value:10}", "dataset.patience=0", "training.decay={kind:step,every:5,factor:0.5}",
        "seed=9007199254740992")  # fmt: skip


@pytest.mark.parametrize("override", ENDS)
def test_numbers_at_the_ends_of_their_ranges_are_allowed(override: str, base: Study) -> None:
    check_values(changed(base, override))


SPACES = [
    "loss.space.pos_margin.bounds=[1]", "loss.space.pos_margin.bounds=[1,1]", "loss.space.pos_margin.bounds=[2,1]",
    "loss.space.pos_margin.bounds=[]", "loss.space.pos_margin.bounds=[a,b]", "loss.space.pos_margin.bounds=[0,1,2]",
    "loss.space.pos_margin.bounds=null", "loss.space.pos_margin.bounds=1", "loss.space.pos_margin.bounds=[0,inf]",
    "loss.space.pos_margin.bounds=[nan,1]", "loss.space.pos_margin.bounds=[null,1]", "loss.space.pos_margin=null",
    "loss.space.pos_margin.scale=ln",
    "loss.space.pos_margin.scale=log", "loss.space.pos_margin.type=str", "loss.space.pos_margin.type=null",
    "loss.space.pos_margin.bounds=[0.5,0.7]", "loss.space=null", "loss.space.other.bounds=[0,1]",
    "loss.setting=null", "loss.setting.pos_margin=null", "loss.setting.pos_margin=abc",
    "loss.setting.pos_margin=true", "loss.setting.pos_margin=[1]", "loss.setting.pos_margin=-1",
    "loss.setting.pos_margin=nan", "loss.setting.pos_margin=1e300", "loss.setting.other=1",
]  # fmt: skip


FAST_SPACES = [
    "loss.space.pos_margin.bounds=[1]", "loss.space.pos_margin.bounds=[2,1]", "loss.space.pos_margin.bounds=[nan,1]",
    "loss.space.pos_margin=null", "loss.space.pos_margin.scale=log", "loss.space.pos_margin.type=str",
    "loss.space.other.bounds=[0,1]", "loss.setting.pos_margin=abc", "loss.setting.other=1",
]  # fmt: skip


@pytest.mark.bad_input("command line", "search spaces and settings")
@pytest.mark.parametrize("override", slow_except(FAST_SPACES, SPACES))
def test_a_space_that_cannot_be_searched_is_refused_with_its_key(override: str, base: Study) -> None:
    with pytest.raises(UserError) as error:
        found = changed(base, override)
        check_values(found)
        check_space(found)
    text = str(error.value)
    key = override.partition("=")[0]
    assert key.rpartition(".")[0] in text and len(text) < 800
    assert not [row for row in ROWS if row in text], text


COMMANDED_SPACES = {
    "loss.space.proxy_lr={}": ("changes nothing",), "loss.space.proxy_lr=[0,1]": ("loss.space.proxy_lr",),
    "loss.space=[a]": ("loss.space",), "loss.setting=[1]": ("loss.setting",),
    "loss.space={}": ("loss.space={} changes nothing", "~loss.space."),
    "loss.setting={}": ("loss.setting={} changes nothing",), "~loss.space": ("loss.space cannot be deleted",),
    "~loss.setting": ("loss.setting cannot be deleted",),
    "~loss.space.nope": ("no key 'loss.space.nope'", "softmax_scale"),
    "~loss.space.proxy_lr.bounds": ("loss.space.proxy_lr.bounds",), "training.optimizers={}": ("changes nothing",),
    "loss.space.softmax_scale.bounds=[1]": ("give two numbers",),
    "loss.space.softmax_scale.bounds=1,2": ("has several values", "'loss.space.softmax_scale.bounds=[1,2]'"),
    "loss.setting.softmax_scale=5000": ("lies outside its space [0.01, 100]",),
}  # fmt: skip


@pytest.mark.bad_input("command line", "search spaces and settings")
@pytest.mark.parametrize(
    "argument", [pytest.param(a, marks=[pytest.mark.slow] * (number > 2)) for number, a in enumerate(COMMANDED_SPACES)]
)
def test_a_space_that_a_command_cannot_search_leaves_no_folder(argument: str, tmp_path: Path) -> None:
    refused(tmp_path, on_tiny(f"results_dir={tmp_path}/results", argument), *COMMANDED_SPACES[argument])


SYNTAX: dict[tuple[str, ...], tuple[str, ...]] = {
    ("loss", "=", "hpl_pa"): ("'loss' cannot be read", "Did you mean loss=hpl_pa?"),
    ("loss", "hpl_pa"): ("Did you mean loss=hpl_pa?",), ("loss=", "hpl_pa"): ("'hpl_pa' cannot be read", "key=value"),
    ("loss:hpl_pa",): ("Did you mean loss=hpl_pa?",), ("loss=hpl_pa,",): ("Did you mean loss=hpl_pa?",),
    ("loss＝hpl_pa",): ("FULLWIDTH EQUALS SIGN", "Did you mean loss=hpl_pa?"), ("loss",): ("'loss' cannot be read",),
    ("–loss=hpl_pa",): ("EN DASH", "Did you mean loss=hpl_pa?"), ("—loss=hpl_pa",): ("EM DASH",),
    ("−−loss=hpl_pa",): ("MINUS SIGN", "Did you mean loss=hpl_pa?"),
    ("“loss=hpl_pa”",): ("LEFT DOUBLE QUOTATION MARK",),
    ("variant=“wide”",): ("LEFT DOUBLE QUOTATION MARK", "Did you mean variant=wide?"),
    ("trials=١٢",): ("ARABIC-INDIC",),
    ("variant=\u00a0a",): ("NO-BREAK SPACE",), ('variant="x',): ("a quote in it is not closed",),
    ("variant='x",): ("a quote in it is not closed",), ("loss=[a",): ("'loss=[a' cannot be read",),
    ("loss={a",): ("cannot be read",), ("loss=a)",): ("cannot be read",), ("",): ("'' cannot be read", "key=value"),
    (" ",): ("cannot be read",), ("=",): ("'=' cannot be read",), ("=3",): ("'=3' cannot be read",),
    ("a b=3",): ("cannot be read",), ("trials==3",): ("cannot be read",), ("trials=3;seed=4",): ("cannot be read",),
    ("seed=1", "seed=2"): ("seed is given twice: 'seed=1' and 'seed=2'", "--multirun seed=A,B"),
    ("seed=1", "seed=1"): ("seed is given twice",), ("seed=1", "++seed=2"): ("seed is given twice",),
    ("loss=triplet", "loss=hpl_pa"): ("loss is given twice: 'loss=triplet' and 'loss=hpl_pa'",),
    ("seed=1,2",): ("has several values", "--multirun seed=1,2"), ("seed=range(1,5)",): ("has several values",),
    ("seed=choice(1,2)",): ("has several values",), ("seed=???",): ("??? stands for a missing value",),
    ("seed=${oc.env:HOME}",): ("not to the environment",),
    ("variant=${hydra:runtime.cwd}",): ("not to the environment",),
    ("results_dir=${oc.env:HOME}/x",): ("not to the environment",),
    ("variant=a${loss.name}",): ("only to another key",),
    ("variant=${oc.decode:1}",): ("not to the environment",), ("x=" + "y" * 20_000,): ("20,002 characters",),
    ("variant=a\nb",): ("'\\n'",), ("variant=a\x00b",): ("'\\x00'",), ("\x1b[2J",): ("\\x1b",),
    ("variant=caf\udce9",): ("\\udce9",), ("~seed",): ("seed cannot be deleted", "seed=VALUE"),
    ("~trunk.width",): ("trunk.width cannot be deleted",), ("~dataset",): ("dataset cannot be deleted",),
    ("study=x", "~seed"): ("seed cannot be deleted",), ("~",): ("cannot be read",), ("+",): ("cannot be read",),
}  # fmt: skip


@pytest.mark.bad_input("command line", "syntax")
@pytest.mark.parametrize("arguments", SYNTAX, ids=lambda words: ascii(" ".join(words))[:40])
def test_arguments_that_cannot_be_read_are_refused_with_what_was_meant(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    refused(tmp_path, list(arguments), *SYNTAX[arguments])


KEYS = {
    ("+seed=3",): ("+seed adds a key that exists already", "seed=VALUE"), ("+new.key=1",): ("no key 'new'",),
    ("--multirun", "loss=hpl_pa,proxy_nca", "trails=3"): ("Did you mean 'trials'?",),
    ("++x=1",): ("no key 'x'", "Keys: dataset, loss,"),
}  # fmt: skip
HYDRA: dict[tuple[str, ...], tuple[str, ...]] = {
    ("--foo",): ("no flag '--foo'", "--cfg job", "--multirun"), ("-x",): ("no flag '-x'",), ("-",): ("no flag '-'",),
    ("--",): ("no flag '--'",), ("--loss", "hpl_pa"): ("no flag '--loss'", "no dashes: loss=hpl_pa"),
    ("--loss=hpl_pa",): ("no dashes: loss=hpl_pa",), ("-loss=hpl_pa",): ("no dashes: loss=hpl_pa",),
    ("--trunk.width", "64"): ("no dashes: trunk.width=64",), ("--seed=3",): ("no dashes: seed=3",),
    ("--config-path=/tmp",): ("no flag '--config-path=/tmp'",), ("--config-dir", "/tmp"): ("no flag '--config-dir'",),
    ("--config-name=x",): ("no flag '--config-name=x'",), ("-cn", "x"): ("no flag '-cn'",), ("-cp=x",): ("no flag",),
    ("--hydra-help",): ("no flag '--hydra-help'",), ("--info",): ("no flag '--info'",),
    ("--run",): ("no flag '--run'",),
    ("--experimental-rerun=x",): ("no flag",), ("--package=loss",): ("no flag",), ("--shell-completion",): ("no flag",),
    ("--version",): ("no flag '--version'",), ("--cfg",): ("--cfg job",), ("--cfg", "all"): ("--cfg job",),
    ("--cfg=hydra",): ("--cfg job",), ("--resolve",): ("--cfg job --resolve",), ("--multi-run",): ("no flag",),
    ("hydra.run.dir=/",): ("keys of Hydra itself", "results_dir=FOLDER"), ("hydra.job.chdir=true",): ("keys of Hydra",),
    ("hydra/launcher=joblib",): ("keys of Hydra itself",), ("+hydra.x=1",): ("keys of Hydra itself",),
    ("hydra.output_subdir=x",): ("keys of Hydra",), ("hydra.sweep.dir=/x",): ("keys of Hydra",),
    ("hydra.mode=MULTIRUN",): ("keys of Hydra",), ("hydra.searchpath=[file:///tmp]",): ("keys of Hydra",),
    ("~hydra.job",): ("keys of Hydra",), ("hydra=x",): ("keys of Hydra",),
    ("hydra/job_logging=default",): ("keys of Hydra",),
    ("--multirun", f"seed=range(0,{BIG})"): ("more than 1,000 values",),
    ("--multirun", "seed=range(0,0)"): ("no values",),
    ("--multirun", "seed=interval(0,1)"): ("no list of values", "--multirun seed=1,2,3"),
    ("--multirun", "seed=glob(*)"): ("no values",), ("--multirun", "loss=glob(nothing*)"): ("no values",),
    ("--multirun", "seed=range(0,1,0)"): ("cannot be listed",),
    ("--multirun", "loss=hpl_pa,hpl_paa"): ("no loss 'hpl_paa'",),
    ("--multirun", "seed=range(0,100)", "trials=range(1,100)"): ("more than 1,000 studies",),
}  # fmt: skip


@pytest.mark.bad_input("command line", "flags and keys of Hydra")
@pytest.mark.parametrize("arguments", [*HYDRA, *(pytest.param(k, marks=pytest.mark.slow) for k in KEYS)], ids=" ".join)
def test_a_flag_or_key_of_hydra_is_refused_with_those_that_there_are(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    refused(tmp_path, list(arguments), *(HYDRA | KEYS)[arguments])


def test_a_key_that_is_missing_although_no_key_was_given_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def adapt(config: object, overrides: object) -> None:
        raise ConfigKeyError("Key 'preset' is not in struct")

    monkeypatch.setattr(spaces, "adapt", adapt)
    with pytest.raises(UserError, match="Key 'preset' is not in struct"):
        cli.study_of(["loss=hpl_pa"])


@pytest.mark.parametrize("verb", [verb for verb in VERBS if not verb.startswith("bench")])
def test_every_command_reads_its_arguments_in_the_same_way(verb: str, tmp_path: Path) -> None:
    refused(tmp_path, ["seed=1", "seed=2"], "seed is given twice", verb=verb)
    refused(tmp_path, ["--foo"], "no flag '--foo'", verb=verb)
    refused(tmp_path, ["loss=HPL_PA"], "Did you mean 'hpl_pa'?", verb=verb)


def test_several_studies_run_in_order_and_leave_no_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [option for option in on_tiny() if not option.startswith("loss=")]
    ended = commanded("bo", "--multirun", *given, "seed=2,1", "loss=contrastive")
    assert ended.status == 0, ended
    assert [line.rpartition("/")[2] for line in ended.out.splitlines() if "reached" in line] == [
        "contrastive with seed 2",
        "contrastive with seed 1",
    ]
    assert not list(tmp_path.iterdir())


def test_one_value_of_a_list_needs_no_brackets() -> None:
    given = ["figure=embeddings", "+keep_epochs=3", "corruptions=[blur,jpeg]"]
    (job,) = arguments.read(given, (), lambda group: ()).jobs
    assert job == ["figure=[embeddings]", "+keep_epochs=[3]", "corruptions=[blur,jpeg]"]


def test_a_study_that_is_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match="names a twice"):
        arguments.read(["loss=a,b,a"], ("loss",), lambda group: ("a", "b"), ("loss",))


@pytest.mark.parametrize("value", ["~/my nets/a,b.pth", "null", "v1", "./5"])
def test_a_file_of_weights_is_one_text_whatever_it_is_called(value: str) -> None:
    overrides = arguments.read([f"trunk.module.weights={value}"], (), lambda _: ())
    assert OverridesParser.create().parse_override(overrides.jobs[0][0]).value() == (None if value == "null" else value)


@pytest.mark.slow
def test_the_configuration_of_a_stored_study_is_shown_as_it_is_stored(results: Path) -> None:
    folder = study_dir(results)
    shown = commanded("bo", f"study={folder}", "display=quiet", "--cfg", "job")
    assert shown.status == 0 and "width: 8\n" in shown.out and "name: proxy_nca\n" in shown.out
    assert f"study: {folder}\n" in shown.out and "display: quiet\n" in shown.out
    assert_refused(commanded("bo", f"study={results}", "--cfg", "job"), f"There is no study in {results}")
    part = commanded("bo", f"study={folder / 'bo'}")
    assert_refused(part, f"There is no study in {folder / 'bo'}. It is part of the study STUDY={folder}.")


def test_the_configuration_is_shown_with_its_references_or_resolved(tmp_path: Path) -> None:
    shown, resolved = (commanded("bo", "seed=7", "--cfg", "job", *flags).out for flags in ([], ["--resolve"]))
    assert "seed: 7\n" in shown and "trials: ${protocol.trials}\n" in shown and "trials: ${" not in resolved
    lacking = commanded("traditional", "loss=soft_triple", "--cfg", "job", "--resolve")  # its file names no recipe
    assert lacking.status == 0 and "\n  recipe: " in lacking.out and "${" not in lacking.out, lacking


MANY = (
    ("seed=3", "variant=a"), ("dataset=glyphs_small", "loss=contrastive", "trunk.width=8", "+loss.sampler.fresh=true"),
    ("protocol=traditional", "~loss.space.proxy_lr", "loss=proxy_nca", "results_dir=/tmp/a b"),
    ("dataset=folder", "dataset.module.root=/x", "loss.setting={a:1,b:2}", "++loss.setting.c=null", "trials=1e3"),
    ("executor=local", "searcher=ax", "dataset.recall_at=[1,2]", "training.clip={value:10}", "+recipe=hpl"),
)  # fmt: skip
WRONG = (
    ("trails=3",),
    ("+seed=3",),
    ("~nope",),
    ("loss=nope", "seed=3"),
    ("seed=1,2",),
    ("trunk.width.x=3",),
    ("seed",),
)


def outcome(compose: Callable[[str, list[str]], DictConfig], given: tuple[str, ...]) -> object:
    """The configuration and its flags, or the type and the text of the exception."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            found = compose("config", list(given))
        except Exception as error:
            return type(error), str(error), str(error.__cause__)
    return OmegaConf.to_yaml(found), list(found), OmegaConf.is_struct(found), OmegaConf.is_readonly(found)


@pytest.mark.parametrize("given", slow_except([MANY[0], *WRONG], [*MANY, *WRONG]), ids=" ".join)
def test_what_the_tests_compose_is_what_hydra_composes(given: tuple[str, ...]) -> None:
    expected = outcome(hydra.compose, given)
    assert [outcome(command_line.compose, given) for _ in range(2)] == [expected] * 2  # anew, then from what is kept


def parts_of(node: Any) -> Iterator[tuple[Any, ...]]:
    """Every node of a configuration: its type, metadata, value, and whether its parts refer to it."""
    content = node.__dict__.get("_content")
    inner = list(content.values() if isinstance(content, dict) else content) if isinstance(content, dict | list) else []
    keys = list(content) if isinstance(content, dict) else len(inner)
    value = node.__dict__.get("_val", content if not inner else keys)
    metadata = vars(node._metadata) | {"flags": copy.copy(node._metadata.flags)}
    yield type(node), metadata, value, [part._get_parent() is node for part in inner]
    for part in inner:
        yield from parts_of(part)


def test_a_copy_is_what_pickling_gives_and_shares_nothing_with_the_original() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = hydra.compose("config", ["loss=hpl_pa"])
    for config in (composed, OmegaConf.merge(schema(), composed)):
        before, copied = list(parts_of(config)), copy.deepcopy(config)
        assert list(parts_of(copied)) == list(parts_of(pickle.loads(pickle.dumps(config)))) == before
        assert copied._get_parent() is None and copy.deepcopy(config.loss)._get_parent() is config
        OmegaConf.set_struct(copied, None if OmegaConf.is_struct(copied) else True)
        OmegaConf.set_struct(copied.loss, True)
        copied.loss.name = "other"
        assert list(parts_of(config)) == before
