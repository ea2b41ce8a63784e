"""Wrong training labels: how many, which, and whose; and that nothing but the training reads them."""

import collections
from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.protocol.label_noise import with_symmetric_noise
from benchmark.study.assemble import build
from benchmark.study.preflight import check_values
from benchmark.study.study import Study
from benchmark.training.components import TrainingComponents

Compose = Callable[..., Study]
LABELS = np.repeat(np.arange(40), 25)
SMALL = ("dataset=glyphs_small", "trunk.width=8", "protocol.batch_size=32", "threads=1", "loss=cosface")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.333, 0.9])
def test_exactly_the_share_of_the_labels_is_wrong_and_the_given_ones_stay(share: float) -> None:
    before = LABELS.copy()
    noisy = with_symmetric_noise(LABELS, share, seed=1)
    assert sum(int(one != other) for one, other in zip(noisy, before, strict=True)) == round(share * 1000)
    assert set(noisy.tolist()) <= set(range(40)) and noisy.dtype == np.int64
    assert np.array_equal(LABELS, before)


def test_every_other_class_is_equally_likely() -> None:
    pairs: collections.Counter[tuple[int, int]] = collections.Counter()
    labels = np.repeat(np.arange(4), 30)
    for seed in range(300):
        noisy = with_symmetric_noise(labels, 0.5, seed)
        pairs.update(zip(labels.tolist(), noisy.tolist(), strict=True))
    wrong = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
    assert len(wrong) == 12 and sum(wrong.values()) == 300 * 60
    assert all(abs(count - 1500) < 5 * 37 for count in wrong.values()), "binomial: sqrt(18,000 / 12 * 11 / 12) = 37"


def test_the_seed_decides_and_a_smaller_share_is_part_of_a_larger_one() -> None:
    few, many, other = (with_symmetric_noise(LABELS, share, seed) for share, seed in ((0.1, 3), (0.4, 3), (0.4, 4)))
    wrong = few != LABELS
    assert np.array_equal(many[wrong], few[wrong])
    assert np.array_equal(many, with_symmetric_noise(LABELS, 0.4, 3)) and not np.array_equal(many, other)


def parts(compose: Compose, *options: str, index: int = 0, fold: int = 0) -> TrainingComponents:
    study = compose(*SMALL, *options)
    fingerprint = study.make_dataset().fingerprint
    return build(study, {}, fingerprint=fingerprint, kind="run", index=index, fold=fold)[0]


def test_a_fold_trains_on_wrong_labels_of_its_own_classes_and_validates_on_right_ones(compose_study: Compose) -> None:
    clean, noisy = parts(compose_study), parts(compose_study, "protocol.label_noise=0.25")
    count = len(clean.labels)
    assert int((clean.labels != noisy.labels).sum()) == round(0.25 * count)
    assert set(noisy.labels.tolist()) == set(clean.labels.tolist()), "of the fold's training classes"
    assert clean.validation is not None and noisy.validation is not None
    assert torch.equal(clean.validation.labels, noisy.validation.labels)
    rows = noisy.sampler.batch(0)
    assert len({int(noisy.labels[row]) for row in rows}) == len(rows), "one image per class, of the labels trained on"


def test_losses_share_the_wrong_labels_of_a_run_and_fold_and_others_have_their_own(compose_study: Compose) -> None:
    noise = "protocol.label_noise=0.25"
    first = parts(compose_study, noise)
    assert torch.equal(first.labels, parts(compose_study, noise, "loss=proxy_nca").labels)
    clean = parts(compose_study)
    assert not torch.equal(first.labels, parts(compose_study, noise, index=1).labels)
    fold = parts(compose_study, noise, fold=1).labels, parts(compose_study, fold=1).labels
    wrong = [tuple(np.flatnonzero((one != other).numpy())) for one, other in ((first.labels, clean.labels), fold)]
    assert wrong[0] != wrong[1]


def test_no_noise_leaves_the_identity_and_another_share_changes_it(compose_study: Compose) -> None:
    plain = compose_study(*SMALL)
    assert "label_noise" not in plain.science("f")["protocol"]
    found = {compose_study(*SMALL, f"protocol.label_noise={share}").identity("f") for share in (0.0, 0.1, 0.2)}
    assert len(found) == 3 and plain.identity("f") in found


@pytest.mark.parametrize("share", ["1.0", "-0.1", "32"])
def test_a_share_that_is_no_share_is_refused(share: str, compose_study: Compose) -> None:
    with pytest.raises(UserError, match=r"protocol.label_noise=.*at least 0 and below 1"):
        check_values(compose_study(*SMALL, f"protocol.label_noise={share}"))
