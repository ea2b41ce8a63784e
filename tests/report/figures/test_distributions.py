"""Learned and measured distributions: the quantities in loops, the figure, and the command that draws it."""

import csv
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from benchmark.figures import figures
from benchmark.losses.hist import HIST
from benchmark.report.figures.distributions import Compared, compare, draw, write_csv
from benchmark.study.model_files import read_weights
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from benchmark.traditional import traditional
from tests.command_line import assert_refused, run, study_dir, tiny


def by_loops(
    embeddings: list[list[float]], labels: list[int], means: list[list[float]], variances: list[list[float]]
) -> list[list[float]]:
    """For each class: number of images, own cosine, nearest other cosine, norm, spread."""
    units = [[x / math.hypot(*z) for x in z] for z in embeddings]
    members = [[z for z, label in zip(units, labels, strict=True) if label == c] for c in range(len(means))]
    centres = [[sum(column) / len(own) for column in zip(*own, strict=True)] for own in members]
    found = []
    for c, (mean, own) in enumerate(zip(means, members, strict=True)):
        cosines = [
            sum(a * b for a, b in zip(mean, centre, strict=True)) / math.hypot(*mean) / math.hypot(*centre)
            for centre in centres
        ]
        spread = sum(math.dist(z, centres[c]) ** 2 for z in own) / len(own)
        others = [cosine for other, cosine in enumerate(cosines) if other != c]
        found.append([len(own), cosines[c], max(others), math.hypot(*variances[c]), spread])
    return found


def test_the_quantities_agree_with_loops() -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(9, 3)) * 5, np.array([2, 0, 1, 1, 0, 2, 0, 2, 2])
    means, variances = rng.normal(size=(3, 3)) * 2, rng.uniform(1, 3, (3, 3))
    found = compare(embeddings, labels, means, variances)
    expected = by_loops(embeddings.tolist(), labels.tolist(), means.tolist(), variances.tolist())
    columns = [found.images, found.own, found.other, found.norm, found.spread]
    np.testing.assert_allclose(np.stack(columns, axis=1), expected, rtol=1e-12)
    assert found.share == sum(row[1] > row[2] for row in expected) / 3


def facts(**fields: list[float]) -> Compared:
    usual = {"images": [2, 3, 4], "own": [0.9, 0.2, 0.8], "other": [0.1, 0.3, 0.1], "norm": [1, 3, 2],
             "spread": [0.1, 0.9, 0.4]}  # fmt: skip
    return Compared(**{name: np.array(value) for name, value in (usual | fields).items()})


def test_the_correlation_is_that_of_ranks_and_none_of_constants() -> None:
    assert facts().correlation == pytest.approx(1) and facts(norm=[3, 1, 2]).correlation == pytest.approx(-1)
    assert math.isnan(facts(norm=[2, 2, 2]).correlation) and facts().share == pytest.approx(2 / 3)


def test_the_variances_of_hist_are_those_of_its_clamped_logarithms() -> None:
    options = {"tau": 16.0, "alpha": 1.0, "hidden": 4, "semantic_weight": 1.0, "seed": 0}
    loss = HIST(2, 2, logvar_clamp=(0.0, 6.0), **options)  # type: ignore[arg-type]
    with torch.no_grad():
        loss.log_vars.copy_(torch.tensor([[-1.0, 0.5], [2.0, 9.0]]))  # type: ignore[union-attr]
        loss.means.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))
    means, variances = loss.distributions()
    torch.testing.assert_close(means, torch.tensor([[0.6, 0.8], [0.0, -1.0]]))
    torch.testing.assert_close(variances, torch.tensor([[1.0, math.exp(0.5)], [math.exp(2), math.exp(6)]]))
    proxies = HIST(2, 2, logvar_clamp=(0.0, 6.0), variances="unit", **options)  # type: ignore[arg-type]
    assert proxies.distributions()[1].tolist() == [[1, 1], [1, 1]] and not variances.requires_grad


def test_each_model_has_its_panels_and_each_class_its_line(tmp_path: Path) -> None:
    figure = draw([facts(), facts(norm=[3, 1, 2])])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0].startswith("model 0: 67 % of 3 means") and titles[3] == "model 1: rank correlation -1.00"
    assert np.asarray(figure.axes[1].collections[0].get_offsets()).tolist() == [[0.1, 1], [0.9, 3], [0.4, 2]]
    write_csv(tmp_path / "d.csv", [(["a", "b", "=c"], facts())])
    lines = (tmp_path / "d.csv").read_text().splitlines()
    assert lines[1] == "0,a,2,0.9,0.1,1,0.1" and lines[3].startswith("0,'=c,4,") and len(lines) == 4


def test_a_loss_without_distributions_is_refused_before_its_weights_are_asked_for(results: Path) -> None:
    ended = run(figures, f"study={study_dir(results)}", "figure=[distributions]", "executor=inline")
    assert_refused(ended, "figure=distributions", "proxy_nca learns no Gaussian")


@pytest.mark.slow
def test_the_command_compares_what_a_kept_model_learned_with_its_training_images(
    tmp_path: Path, no_fsync: None
) -> None:
    options = ("loss=hist", "training.batch_size=64", "training.epochs=1", "protocol.num_runs=1", "keep=best")
    assert tiny(traditional, tmp_path, *options, protocol="traditional").status == 0
    folder = tmp_path / "studies" / "glyphs_small-small_conv-traditional" / "hist"
    before = (folder / "test_ledger.jsonl").read_bytes()
    ended = run(figures, f"study={folder}", "figure=[distributions]", "executor=inline")
    assert ended.status == 0, ended
    assert (folder / "test_ledger.jsonl").read_bytes() == before, "it shows training classes only"
    assert matplotlib.image.imread(folder / "figures" / "run_00_distributions.png").std() > 0.05
    with (folder / "figures" / "run_00_distributions.csv").open() as file:
        rows = list(csv.DictReader(file))
    split = Study.of(read_study(folder).config).make_dataset().trainval()
    assert [row["class"] for row in rows] == split.class_names
    assert [int(row["images"]) for row in rows] == [int((split.labels == c).sum()) for c in split.class_ids]
    weights = folder / "traditional/setting/run_00/weights.safetensors"
    log_vars = read_weights(weights, torch.device("cpu"), lambda _: "")["loss"]["log_vars"]
    norms = log_vars.clamp(0, 6).exp().square().sum(dim=1).sqrt()
    assert [float(row["covariance_norm"]) for row in rows] == pytest.approx(norms.tolist(), rel=1e-4)
    assert all(0 < float(row["spread"]) < 1 and abs(float(row["own_cosine"])) <= 1 for row in rows)
