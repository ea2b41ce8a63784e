"""Files of `experiments/`: what they turn into, and what a wrong one gives."""

import csv
import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from benchmark.core.errors import UserError
from benchmark.experiment import spec
from benchmark.experiment.published import PATH, cells_of, sources
from tests.cases import for_each

TEXT = """
title: Cars
datasets: [cars196, cub]
common: {trunk: resnet50, protocol: traditional, protocol.images.crop: 256, training.recipe: hpl}
published: [HPL_supp_Fig2]
quoted: [Proxy-NCA]
studies:
  - {loss: proxy_nca, variant: recipe_hpl, datasets: [cars196], published: Proxy-NCA}
  - {loss: hpl_nca, variant: p10, set: {loss.setting.num_coarse: 10}, elsewhere: {loss.setting.num_coarse: 3},
     published: HPL-NCA}
sweep:
  - {key: loss.setting.update_every, values: [10, 20], elsewhere: [2], name: t, losses: [hpl_nca], published: "T={}"}
"""
OPTIONS = {"trunk": "resnet50", "protocol": "traditional", "protocol.images.crop": 256, "training.recipe": "hpl"}


def parsed(tmp_path, text=TEXT):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return spec.parse(path, "mine")


def test_a_study_has_the_common_options_its_own_and_one_value_of_each_sweep(tmp_path):
    base, first, second = parsed(tmp_path).members("cars196")
    assert base.options == {"dataset": "cars196", "loss": "proxy_nca", "variant": "recipe_hpl"} | OPTIONS
    own = {"loss.setting.num_coarse": 10, "loss.setting.update_every": 10}
    assert first.options == {"dataset": "cars196", "loss": "hpl_nca", "variant": "p10_t10"} | OPTIONS | own
    assert (second.folder_name, second.swept) == ("hpl_nca-p10_t20", {"loss.setting.update_every": 20})


def test_a_row_of_one_data_set_is_not_run_on_the_others(tmp_path):
    assert [member.loss for member in parsed(tmp_path).members("cub")] == ["hpl_nca", "hpl_nca"]


def test_the_published_number_is_that_of_the_swept_value(tmp_path):
    cells = [member.published[("recall_at_1",)].value for member in parsed(tmp_path).members("cars196")]
    assert cells == [82.8, 84.7, 85.5], "as the text on figure 2 of HPL's supplement gives them"
    assert parsed(tmp_path).quoted_rows("cars196")["Proxy-NCA"][("recall_at_1",)].value == 82.8
    assert not parsed(tmp_path).quoted_rows("cub")


def test_another_data_set_brings_its_own_trunk_and_images_and_has_no_published_numbers(tmp_path):
    small = parsed(tmp_path).pointed_at("glyphs", "small")
    base, other = small.members("glyphs")
    assert (small.for_reporting, small.folder) == (False, "results/small/mine")
    assert base.options == {
        "dataset": "glyphs", "loss": "proxy_nca", "variant": "recipe_hpl", "protocol": "traditional",
        "training.recipe": "hpl", "training.epochs": 6, "protocol.num_runs": 2,
    }  # fmt: skip
    assert other.options["loss.setting.num_coarse"] == 3 and other.options["loss.setting.update_every"] == 2
    assert not base.published and not other.published


def test_one_of_its_own_data_sets_is_for_reporting_too(tmp_path):
    part = parsed(tmp_path).pointed_at("cub")
    assert part.datasets == ["cub"] and part.for_reporting


def test_a_published_setting_is_replaced_by_the_loss_s_own_on_another_data_set(tmp_path):
    text = "title: t\ndatasets: [cub]\ncommon: {trunk: resnet50, protocol: hpl}\n"
    text += "studies: [{loss: ms, preset: published}]\n"
    found = parsed(tmp_path, text)
    assert found.members("cub")[0].folder_name == "ms-published"
    (other,) = found.pointed_at("glyphs", "small").members("glyphs")
    assert other.options == {
        "dataset": "glyphs", "loss": "ms", "preset": "default", "protocol": "hpl", "protocol.num_runs": 3,
    }, "without trials, since it does not search"  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: t\ndatasets: [cub]\ncommon: {protocol: hpl}\nstudies: []\n", "common lacks trunk"),
        ("datasets: [cub]\nstudies: []\n", "title"),
        (TEXT + "rows: [1]\n", "rows"),
        (TEXT.replace("variant: p10", "varient: p10"), "varient"),
        (TEXT.replace("values: [10, 20]", "values: 10"), r"sweep\[0\]\.values"),
        ("title: [", "mine.yaml"),
    ],
    ids=["no trunk", "no title", "unknown key", "misspelt key", "no list", "no YAML"],
)
def test_a_wrong_file_is_refused_with_the_key(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        parsed(tmp_path, text)


def test_an_unknown_experiment_or_budget_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no experiment 'hpl_table_9'.*hpl_table_3"):
        spec.read("hpl_table_9")
    with pytest.raises(UserError, match="budget=tiny: allowed are full, small"):
        parsed(tmp_path).pointed_at("glyphs", "tiny")


@pytest.mark.parametrize(
    "value", [[1.0, 0.3], {"kind": "cosine"}, None, True, 256, 1e-4, "avg+max", "torch.optim.Adam", "a b", [1, [2]]]
)
def test_hydra_reads_every_value_as_it_was(value):
    (found,) = OverridesParser.create().parse_overrides([spec.hydra_override("some.key", value)])
    assert (found.key_or_group, found.value()) == ("some.key", value)


def test_experiments_that_share_a_folder_agree_on_the_study_in_it():
    keeps = {"keep", "keep_epochs", "protocol.num_runs", "trials"}  # change no number
    found = {}
    for experiment in map(spec.read, spec.names()):
        for dataset in experiment.datasets:
            for member in experiment.members(dataset):
                place = (experiment.folder, experiment.group(dataset), member.folder_name)
                options = {key: value for key, value in member.options.items() if key not in keeps}
                assert found.setdefault(place, options) == options, (experiment.name, place)


@for_each("name", spec.names())
def test_every_experiment_names_methods_that_its_sources_print(name):
    experiment = spec.read(name)
    printed = [sources()[source].get(dataset, {}) for source in experiment.published for dataset in experiment.datasets]
    known = {method for methods in printed for method in methods}
    assert {*experiment.quoted} <= known
    for entry in experiment.studies:
        methods = [method for method in known if re.split(r", (?:\|P1\||T=|\d+-d)", method)[0] == entry.published]
        assert not entry.published or entry.published in known or methods, entry
    for dataset in experiment.datasets:
        names = [member.folder_name for member in experiment.members(dataset)]
        assert len(names) == len({*names})


@pytest.mark.parametrize(
    ("source", "dataset", "method", "key", "value", "half_width"),
    [
        ("HPL_main_T1", "sop", "Contrastive", ("concatenated", "map_at_r"), 44.51, 0.28),
        ("HPL_main_T4", "inshop", "HPL-PA", ("recall_at_1",), 92.46, None),
        ("HPL_main_T5", "inaturalist2019", "HPL-NCA, |P1|=48", ("recall_at_1",), 51.95, None),
        ("HIST_supp_T8", "cub", "ArcFace", ("concatenated", "map_at_r"), 26.45, 0.20),
        ("HIST_supp_T7", "cars196", "HIST, 1024-d", ("recall_at_1",), 89.7, 0.2),
        ("HIER_supp_T2", "sop", "PA+HIER", ("num_proxies",), 11830, None),
        ("ProxyGML_supp_T1", "cars196", "HDML", ("max_memory_gb",), 8.96, None),
        ("PapersWithCode", "sop", "Smooth-AP", ("recall_at_1",), 80.1, None),
        ("PapersWithCode", "inaturalist2018", "ROADMAP (DeiT)", ("recall_at_16",), 93.1, None),
        ("PFML_summary", "cars196", "PFML", ("recall_at_1",), 92.7, None),
    ],
)
def test_published_cells_are_those_of_the_papers(source, dataset, method, key, value, half_width):
    cell = cells_of(method, dataset, [source])[key]
    assert (cell.value, cell.half_width, cell.source) == (value, half_width, source)


def test_the_first_source_that_has_a_cell_provides_it():
    cells = cells_of("Proxy-NCA", "sop", ["HPL_main_T4", "HPL_supp_T2"])
    assert cells[("recall_at_1",)].value == 77.63 and cells[("recall_at_100",)].value == 94.6
    with pytest.raises(UserError, match="HPL_T99"):
        cells_of("Proxy-NCA", "sop", ["HPL_T99"])
    assert sum(len(c) for s in sources().values() for d in s.values() for c in d.values()) == 715 + 52


def test_a_number_that_was_not_read_in_its_paper_says_where_it_was_read():
    with PATH.open(encoding="utf-8", newline="") as file:
        notes = [row["note"] for row in csv.DictReader(file) if not re.search(r"_(T|Fig)\d", row["source"])]
    assert len(notes) == 52 and all("the paper's table was not read" in note and "/" in note for note in notes)
