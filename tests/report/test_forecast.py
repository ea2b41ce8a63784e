"""The first lines of a search or a final evaluation: what is left, by the records of like trainings."""

from pathlib import Path

import pytest

from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.report.forecast import forecast, known_costs
from benchmark.study.cli import study_of
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from tests.command_line import on_tiny, study_dir, tiny


def study(results: Path, *overrides: str) -> Study:
    return study_of(on_tiny(f"results_dir={results}", *overrides))


@pytest.fixture
def data(results: Path) -> str:
    return read_study(study_dir(results)).fingerprint


@pytest.mark.slow
def test_a_search_is_forecast_by_the_trainings_of_another_loss(results: Path, data: str) -> None:
    study_dir(results, "ms").mkdir()
    trials = sorted((study_dir(results) / "bo").glob("trial_*.json"))
    seconds = [sum(records.read_record(path).provenance["seconds"].values()) / 2 for path in trials]
    costs = list(known_costs(study(results, "loss=ms"), data))
    assert [cost.seconds for cost in costs] == pytest.approx(seconds)
    count = round(7200 / (sum(seconds) / 2))  # two hours of trainings
    text = forecast(study(results, "loss=ms"), data, trainings=count, workers=4, kind="cpu")
    assert (
        f"Left: {count:,} trainings, about 2.0 h of one worker, 30.0 min with 4 workers, by those of proxy_nca" in text
    )
    assert text.endswith(" free")


def test_other_settings_other_data_and_other_devices_do_not_count(results: Path, data: str) -> None:
    study_dir(results, "ms").mkdir()
    for overrides in (["trunk.width=4", "protocol.batch_size=16"], ["dataset.max_epochs=2"]):
        assert not list(known_costs(study(results, "loss=ms", *overrides), data))
    assert not list(known_costs(study(results, "loss=ms"), "other data"))
    text = forecast(study(results, "loss=ms"), data, trainings=1, workers=1, kind="cuda")
    assert text.startswith("Left: 1 training; the time is known once the first epochs are. Disk: ")


def test_a_damaged_record_is_passed_over(results: Path, data: str) -> None:
    (study_dir(results) / "bo" / "trial_000.json").write_text("{")
    assert len(list(known_costs(study(results), data))) == 1


@pytest.mark.slow
def test_a_final_evaluation_starts_with_what_it_will_take(results: Path) -> None:
    ended = tiny(final_eval, results)
    assert ended.status == 0 and "Left: 4 trainings, about " in ended.out, ended
