"""Every mistake on the command line ends with exit status 2 and a sentence, before anything is trained or written."""

from pathlib import Path

import numpy as np
import pytest

from benchmark import bo as bo_story
from benchmark.bo import bo
from benchmark.core import records
from benchmark.data import data
from benchmark.datasets.glyphs import Glyphs
from benchmark.final_eval import final_eval
from benchmark.jobs import session
from benchmark.study.study import Study
from benchmark.tables import tables
from tests.command_line import assert_refused, run, tiny, trainings

MISTAKES = {
    # names that do not exist
    "loss=hpl_paa": ("no loss 'hpl_paa'", "Did you mean 'hpl_pa'?", "Allowed: anti_collapse", "conf/loss/hpl_paa.yaml"),
    "dataset=glyph": ("no dataset 'glyph'", "Did you mean 'glyphs'?", "Allowed: cars196, csv, cub, folder, glyphs"),
    "executor=slum": ("no executor 'slum'", "Allowed: inline, local"),
    "trails=3": ("no key 'trails'", "Did you mean 'trials'?", "Keys: dataset, loss,", "--cfg job"),
    "trunk.widht=3": ("no key 'trunk.widht'", "Did you mean 'trunk.width'?", "Keys of trunk: name, module, width"),
    "truk.width=3": ("no key 'truk.width'", "Did you mean 'trunk.width'?"),
    "max_epochs=3": ("no key 'max_epochs'", "Did you mean 'dataset.max_epochs'?"),
    "+nonsense=3": ("no key 'nonsense'", "Keys: dataset, loss,", "--cfg job"),
    "loss.space.nonsense.bounds=[0,1]": ("no key", "Keys of loss.space: proxy_lr, softmax_scale."),
    "loss.setting.proxy_rl=1": ("Did you mean 'loss.setting.proxy_lr'?", "+loss.setting.proxy_rl=VALUE"),
    "loss.retrieval=l2": ("The file for 'loss.retrieval' does not set it", "+loss.retrieval=VALUE"),
    "+loss.setting.nonsense=1": ("loss.setting.nonsense is not used", "proxy_nca takes proxy_lr, softmax_scale"),
    "+loss.module.nonsense=1": ("ProxyNCA", "argument 'nonsense'", "It takes num_classes, embedding_dim"),
    "+loss.sampler.fresh_clases=true": ("MPerClass", "unexpected keyword argument 'fresh_clases'", "fresh_classes"),
    "trials": ("'trials' cannot be read", "key=value"),
    "loss=3": ("no loss '3'", "Allowed: anti_collapse"),
    "protocol=2020": ("no protocol '2020'", "Allowed: hpl, mlrc_2020"),
    "=3": ("'=3' cannot be read", "key=value"),
    "loss=[a": ("'loss=[a' cannot be read", "quotes"),
    # wrong types
    "trials=abc": ("trials=abc: give a whole number", "--cfg job"),
    "seed=x": ("seed=x: give a whole number",),
    "seed=null": ("seed=null: this key needs a value",),
    "training.freeze_batchnorm=2.5": ("training.freeze_batchnorm=2.5: allowed are true, false, all",),
    "loss.setting.softmax_scale=abc": ("loss.setting.softmax_scale=abc", "a number within [0.01, 100]"),
    "loss.space.softmax_scale.bounds=[a,b]": ("loss.space.softmax_scale.bounds[0]=a: give a number",),
    "training.optimizers.trunk.lr=abc": ("training.optimizers.trunk.lr=abc: give a number of at least 0",),
    # values out of range
    "trials=0": ("trials=0: must be at least 1",),
    "seed=-1": ("seed=-1: must be at least 0",),
    "seed=18014398509481984": ("seed=18014398509481984: must be at least 0 and at most 9007199254740992",),
    "dataset.patience=-1": ("dataset.patience=-1: must be at least 0",),
    "protocol.num_folds=1": ("protocol.num_folds=1: must be at least 2",),
    "protocol.num_folds=80": ("num_folds=80", "glyphs_small has 134 classes", "at most 67: ARGS=protocol.num_folds=67"),
    "protocol.num_folds=200": ("protocol.num_folds=200 needs 200 or more", "ARGS=protocol.num_folds=134"),
    "protocol.confidence=95": ("protocol.confidence=95: must lie between 0 and 1",),
    "searcher.asynchronous=true": ("trains one trial at a time", "searcher.round=4"),
    "searcher.stop_behind=0": ("searcher.stop_behind=0: give points of MAP@R above 0", "null to train every fold"),
    "searcher.stop_behind=2 %": ("searcher.stop_behind=2 %: give a number",),
    "protocol.select=tested": ("searcher=sobol chooses the trial with the highest mean", "searcher=ax"),
    "protocol.noise=none": ("protocol.noise='none': allowed are inferred, fold_sem",),
    "display=loud": ("display='loud': allowed are auto, live, plain, quiet",),
    "device=gpu": ("device='gpu': allowed are auto, cpu, cuda, and cuda:N",),
    "+loss.retrieval=manhattan": ("loss.retrieval='manhattan': allowed are cosine, l2",),
    "training.optimizers.head.lr=-1": ("training.optimizers.head.lr=-1: give a number of at least 0",),
    "training.optimizers.head.lr=nan": ("training.optimizers.head.lr=nan: only finite numbers",),
    "dataset.module.size=7": ("size is 7", "from 8 to 128"),
    # spaces
    "loss.setting.softmax_scale=5000": ("softmax_scale=5000", "[0.01, 100]", "softmax_scale.bounds=[LOW,HIGH]"),
    "loss.space.softmax_scale.bounds=[50,1]": ("loss.space.softmax_scale.bounds=[50, 1]", "the lower one first"),
    "loss.space.softmax_scale.bounds=[50]": ("loss.space.softmax_scale.bounds=[50]", "two numbers"),
    "loss.space.softmax_scale.bounds=[1,inf]": ("loss.space.softmax_scale.bounds.1=inf: only finite numbers",),
    "loss.space.proxy_lr.bounds=[0,1]": ("loss.space.proxy_lr.bounds=[0, 1]", "a lower bound above 0", "scale=linear"),
    "loss.space.proxy_lr.scale=ln": ("scale=ln may be linear or log",),
    "loss.space.softmax_scale.type=int": ("bounds=[0.01, 100]: type int needs whole numbers",),
    # what must not be reached
    "trunk.module._target_=os.system": ("_target_ 'os.system' is not allowed", "benchmark.trunks"),
    "trunk.module._target_=torch.hub.load": ("_target_ 'torch.hub.load' is not allowed", "Allowed: benchmark.trunks."),
    "trunk.module._target_=benchmark.trunks.small_conv.nn": ("small_conv.nn' is not allowed for a trunk",),
    "trunk.module._target_=benchmark.trunks.large_conv.X": ("no module 'benchmark.trunks.large_conv'", "spelling"),
    "+loss.module.extra._target_=subprocess.Popen": ("_target_ 'subprocess.Popen' is not allowed",),
    "variant=../../x": ("variant='../../x' becomes part of a path", "letters, digits and underscores"),
    "dataset.name=..": ("dataset.name='..' becomes part of a path",),
}  # fmt: skip


# Further examples of a kind of mistake that another line of the table shows: part of `make test-all` only.
FURTHER = {
    "dataset=glyph", "executor=slum", "truk.width=3", "+nonsense=3", "loss.space.nonsense.bounds=[0,1]",
    "+loss.sampler.fresh_clases=true", "loss=[a", "seed=x", "seed=null", "training.freeze_batchnorm=2.5",
    "loss.space.softmax_scale.bounds=[a,b]", "seed=-1", "dataset.patience=-1", "protocol.num_folds=1",
    "protocol.num_folds=200", "display=loud", "+loss.retrieval=manhattan", "training.optimizers.head.lr=-1",
    "loss.space.softmax_scale.bounds=[50]", "loss.space.softmax_scale.bounds=[1,inf]", "loss.space.proxy_lr.scale=ln",
    "loss.space.softmax_scale.type=int", "trunk.module._target_=torch.hub.load", "dataset.name=..",
    "trunk.module._target_=benchmark.trunks.small_conv.nn", "trunk.module._target_=benchmark.trunks.large_conv.X",
    "+loss.module.extra._target_=subprocess.Popen",
}  # fmt: skip
assert MISTAKES.keys() > FURTHER


@pytest.mark.parametrize("override", [pytest.param(o, marks=[pytest.mark.slow] * (o in FURTHER)) for o in MISTAKES])
def test_a_mistake_is_named_with_what_is_allowed_and_costs_nothing(override: str, tmp_path: Path) -> None:
    with trainings() as trained:
        ended = tiny(bo, tmp_path / "results", override)
    assert_refused(ended, *MISTAKES[override])
    assert not trained
    assert not list(tmp_path.iterdir()), "a mistake must not start a study"


def test_more_groups_than_classes_are_refused_with_the_end_of_the_space_that_cannot_be_built(tmp_path: Path) -> None:
    ended = tiny(bo, tmp_path, "loss=hpl_pa", "loss.space.num_coarse.bounds=[5,5000]")
    assert_refused(
        ended, "upper ends of its search space", "num_coarse=5000", "below 67", "loss.space.NAME.bounds=[LOW,HIGH]"
    )


def test_a_fold_with_too_few_classes_for_the_batch_is_refused(tmp_path: Path) -> None:
    ended = tiny(bo, tmp_path, "+loss.sampler.fresh_classes=true", "protocol.batch_size=512")
    assert_refused(ended, "512 classes", "the fold has 67", "smaller batch_size")


def test_a_number_of_workers_that_is_none_is_refused(tmp_path: Path) -> None:
    assert_refused(tiny(bo, tmp_path, "executor.workers=many"), "executor.workers='many'", "a positive number, or auto")


def test_nearest_keys_are_those_of_the_chosen_loss(tmp_path: Path) -> None:
    ended = tiny(bo, tmp_path, "loss=contrastive", "loss.setting.pos_margn=1")
    assert_refused(ended, "Did you mean 'loss.setting.pos_margin'?", "Keys of loss.setting: pos_margin, neg_margin.")


@pytest.mark.slow
def test_a_study_that_a_mistake_kept_from_starting_starts_once_it_is_mended(tmp_path: Path) -> None:
    assert tiny(bo, tmp_path, "trunk.module._target_=os.system").status == 2
    with trainings() as trained:
        assert tiny(bo, tmp_path, "trials=1").status == 0
    assert len(trained) == 2


def test_the_data_of_another_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "prepare", lambda study, *halves: "abc123")  # what the driver's machine holds
    ended = tiny(bo, tmp_path)
    assert_refused(ended, "glyphs_small", "started with abc123", "make data DATASET=glyphs_small")


def test_a_folder_below_a_file_is_refused_with_another_to_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for story in (bo, final_eval):
        ended = tiny(story, tmp_path / "file" / "results")
        assert ended.status == 2 and "Traceback" not in ended.err, ended
    assert_refused(tiny(bo, tmp_path / "file"), "file': it is a file, not a folder", "results_dir=FOLDER")


def test_a_read_only_folder_is_refused_with_another_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(records, "open", read_only, raising=False)
    assert_refused(tiny(bo, tmp_path), "Cannot write", str(tmp_path), "Make it writable", "results_dir=FOLDER")


def test_final_eval_before_a_search_names_the_command_and_makes_no_folder(tmp_path: Path) -> None:
    ended = tiny(final_eval, tmp_path)
    assert_refused(
        ended, "There is no search of proxy_nca on glyphs_small", "make bo DATASET=glyphs_small LOSS=proxy_nca"
    )
    assert not list(tmp_path.iterdir())


def test_final_eval_and_tables_without_studies_name_the_command(tmp_path: Path) -> None:
    assert_refused(run(final_eval, f"results_dir={tmp_path}"), "No finished search", str(tmp_path), "Run make bo first")
    assert_refused(run(tables, f"results_dir={tmp_path}"), "no studies", str(tmp_path), "Run make bo")


def test_a_defect_of_ours_shows_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defective(study: Study) -> None:
        len(3)  # type: ignore[arg-type]

    monkeypatch.setattr(bo_story, "check_parts", defective)
    with pytest.raises(TypeError, match="has no len"):
        tiny(bo, tmp_path)


def test_an_error_of_a_library_is_no_mistake_of_the_user_either(tmp_path: Path) -> None:
    def story(study: Study, overrides: list[str]) -> None:
        np.zeros(3).reshape(2, 2)

    with pytest.raises(ValueError, match="reshape"):
        tiny(story, tmp_path)


@pytest.mark.slow
def test_of_several_studies_one_that_cannot_run_does_not_stop_the_others(tmp_path: Path) -> None:
    ran = []

    def story(study: Study, overrides: list[str]) -> None:
        ran.append(study.config.loss.name)
        if len(ran) == 1:
            Glyphs(size=7)

    ended = run(story, "--multirun", f"results_dir={tmp_path}", "loss=proxy_nca,contrastive")
    assert_refused(ended, "size is 7")
    assert ran == ["proxy_nca", "contrastive"]


def test_data_describes_what_it_found(tmp_path: Path) -> None:
    ended = tiny(data, tmp_path)
    assert ended.status == 0 and "134 classes" in ended.out and "licence" in ended.out
