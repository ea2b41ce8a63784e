"""The cross-batch memory, compared with loops over a plain queue, the library's class, and steps worked out by hand."""

import math
from collections import deque
from typing import NamedTuple

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners

from benchmark.core.errors import UserError
from benchmark.losses.xbm import XBM, averaged_contrastive, contrastive
from tests.losses.conftest import cosine
from tests.losses.library import VERSION

B, D = 4, 3


def stream(steps, seed=0, batch=B):
    """Batches of float64 embeddings of any norm, with labels of 3 classes, 0 included."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        embeddings = torch.randn(batch, D, generator=generator, dtype=torch.float64)
        lengths = torch.rand(batch, 1, generator=generator, dtype=torch.float64) * 9 + 0.1
        yield embeddings * lengths, torch.randint(3, (batch,), generator=generator)


def term_by_loops(batch, others, pos_margin, neg_margin):
    """Compute the authors' sum over pairs, divided by B; both arguments are lists of (vector, class)."""
    total = 0.0
    for vector, label in batch:
        for other, other_label in others:
            s = cosine(vector, other)
            distance = math.sqrt(max(0.0, 2 - 2 * s))
            if label == other_label and s < 1 - 1e-5 and distance > pos_margin:
                total += 1 - s
            if label != other_label and distance < neg_margin:
                total += s
    return total / len(batch)


def make(rows, **settings):
    return XBM(D, rows, memory_fraction=1, **settings).double()


def pml(rows, **settings):
    return make(rows, flavour="pml", **settings)


@pytest.mark.parametrize("margins", [(0.0, 1.0), (0.4, 1.7), (1.2, 0.3), (2.0, 0.0), (0.0, 2.0)])
@pytest.mark.parametrize(("rows", "start"), [(12, 0), (13, 2), (5, 0), (3, 1), (1, 0), (100, 8)])
def test_agrees_with_loops_over_a_plain_queue(rows, start, margins):
    module = make(rows, start_iteration=start, weight=0.7, pos_margin=margins[0], neg_margin=margins[1])
    queue = deque(maxlen=rows)
    for step, (embeddings, labels) in enumerate(stream(9), start=1):
        batch = list(zip(embeddings.tolist(), labels.tolist(), strict=True))
        if step > start:
            queue.extend(batch)
        expected = term_by_loops(batch, batch, *margins) + 0.7 * term_by_loops(batch, queue, *margins)
        assert module(embeddings, labels).item() == pytest.approx(expected, rel=1e-11, abs=1e-13)
        assert module.diagnostics()["memory_rows"] == len(queue)


def test_two_steps_worked_out_by_hand():
    module = make(10)
    # Both are of class 0, cosine 0.6: each sample has one pair of 1 - 0.6 in the batch, and again in the memory.
    first = torch.tensor([[2.0, 0.0, 0.0], [0.3, 0.4, 0.0]], dtype=torch.float64)
    assert module(first, torch.tensor([0, 0])).item() == pytest.approx(0.4 + 0.4)
    # (.8, .6) of class 1, (0, 1) of class 0. Batch: cosine .6, above .5, per sample. Memory: again .6; (.8, .6) has .8
    # and .96 with the first batch, both above .5; (0, 1) has 1 - 0 and 1 - .8: 0.6 + (0.8 + 0.96 + 1 + 0.2) / 2 = 2.08.
    second = torch.tensor([[0.8, 0.6, 0.0], [0.0, 5.0, 0.0]], dtype=torch.float64)
    assert module(second, torch.tensor([1, 0])).item() == pytest.approx(0.6 + 2.08)


def test_the_gradient_reaches_both_sides_of_a_pair_in_the_batch_but_not_the_memory():
    module = make(9, pos_margin=0.3, neg_margin=1.3)
    *before, (embeddings, labels) = stream(4)
    for batch in before:
        module(*batch)
    leaf = embeddings.clone().requires_grad_()
    module(leaf, labels).backward()
    memory = list(zip(module.memory.tolist(), module.memory_labels.tolist(), strict=True))  # fixed: the batch as it was

    def loss(rows):
        batch = list(zip(rows.tolist(), labels.tolist(), strict=True))
        return term_by_loops(batch, batch, 0.3, 1.3) + term_by_loops(batch, memory, 0.3, 1.3)

    for row in range(B):
        for column in range(D):
            shift = torch.zeros_like(embeddings)
            shift[row, column] = 1e-6
            slope = (loss(embeddings + shift) - loss(embeddings - shift)) / 2e-6
            assert leaf.grad[row, column].item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(
    ("replicate_quirks", "labels", "rows"),
    [
        (False, [[1, 2, 0, 0, 0], [1, 2, 3, 4, 0], [6, 2, 3, 4, 5], [6, 7, 8, 4, 5], [6, 7, 8, 9, 0]], [2, 4, 5, 5, 5]),
        # The third write would pass the end: it goes to the last two rows, and the fourth starts at row 0. From
        # then on the last row is of class 6, and a last row that is not of class 0 means a full memory.
        (True, [[1, 2, 0, 0, 0], [1, 2, 3, 4, 0], [1, 2, 3, 5, 6], [7, 8, 3, 5, 6], [7, 8, 9, 0, 6]], [2, 4, 5, 5, 5]),
    ],
)
def test_the_queue_if_the_batch_size_does_not_divide_the_memory(replicate_quirks, labels, rows):
    module = make(5, replicate_quirks=replicate_quirks)
    batches = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]]
    for batch, expected, used in zip(batches, labels, rows, strict=True):
        module(torch.randn(2, D, dtype=torch.float64), torch.tensor(batch))
        assert module.memory_labels.tolist() == expected
        assert module.diagnostics()["memory_rows"] == used


@pytest.mark.parametrize(("replicate_quirks", "rows"), [(False, [2, 4, 4, 4]), (True, [2, 4, 0, 2])])
def test_a_last_row_of_class_0_hides_rows_after_the_next_write_only_if_quirks_are_replicated(replicate_quirks, rows):
    module, used = make(4, replicate_quirks=replicate_quirks), []
    for labels in ([1, 1], [1, 1], [1, 0], [2, 2]):  # quirks: the third goes to the last rows, the fourth to the first
        module(torch.randn(2, D, dtype=torch.float64), torch.tensor(labels))
        used.append(module.diagnostics()["memory_rows"])
        if used[-1] == 0:
            assert module.diagnostics()["loss_memory"] == 0
    assert used == rows


@pytest.mark.parametrize("flavour", ["authors", "pml"])
@pytest.mark.parametrize("rows", [3, 17])
def test_resuming_from_a_checkpoint_is_bit_equal(flavour, rows):
    def new():
        return make(rows, flavour=flavour, start_iteration=2)

    batches = list(stream(10))
    for stop in range(8):
        module, twin = new(), new()
        for batch in batches[:stop]:
            module(*batch)
        twin.load_state_dict(module.state_dict())
        for batch in batches[stop:]:
            assert torch.equal(twin(*batch), module(*batch))
        assert all(torch.equal(a, b) for a, b in zip(module.buffers(), twin.buffers(), strict=True))


def test_a_step_that_a_cuda_graph_replays_writes_to_the_rows_that_follow():
    module, twin = make(10), make(10)
    batches = list(stream(8))
    for batch in batches[:4]:  # 16 rows: the ring is full
        module(*batch)
        twin(*batch)
    numbers = list(twin._counters)
    for batch in batches[4:]:
        twin._counters = list(numbers)  # a graph repeats the operations of the device with the numbers of the host
        assert torch.equal(module(*batch), twin(*batch))
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), twin.buffers(), strict=True))


def test_a_checkpoint_whose_position_lies_within_the_ring_is_continued():
    module, twin = make(10), make(10)
    batches = list(stream(8))
    for batch in batches[:4]:
        module(*batch)
    state = module.state_dict()
    assert state["counters"].tolist() == [4, 16, 10]
    twin.load_state_dict(state | {"counters": torch.tensor([4, 6, 10])})
    assert all(torch.equal(module(*batch), twin(*batch)) for batch in batches[4:])


@pytest.mark.parametrize("flavour", ["authors", "pml"])
def test_an_evaluation_reads_the_memory_and_writes_nothing(flavour):
    module = make(10, flavour=flavour)
    *batches, last = stream(3)
    empty = module.eval()(*last)  # nothing to compare with except, for the authors, the batch itself
    within = contrastive(*last, *last) if flavour == "authors" else torch.zeros(())
    assert empty.item() == pytest.approx(within.item())
    for batch in batches:
        module.train()(*batch)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    losses_of_twice = [module.eval()(*last).item() for _ in range(2)]
    assert losses_of_twice[0] == losses_of_twice[1] != empty.item()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


EUCLIDEAN = distances.LpDistance(normalize_embeddings=True, p=2, power=1)
LIBRARY = {
    "contrastive": lambda: {"loss": losses.ContrastiveLoss(pos_margin=0.1, neg_margin=1.2, distance=EUCLIDEAN)},
    "cosine": lambda: {
        "loss": losses.ContrastiveLoss(pos_margin=1, neg_margin=0.5, distance=distances.CosineSimilarity())
    },
    "triplet": lambda: {"loss": losses.TripletMarginLoss(margin=0.2, distance=EUCLIDEAN)},
    "ms": lambda: {"loss": losses.MultiSimilarityLoss(alpha=3, beta=40, base=0.4)},
    "ms and miner": lambda: {
        "loss": losses.MultiSimilarityLoss(alpha=3, beta=40, base=0.4),
        "miner": miners.MultiSimilarityMiner(epsilon=0.2),
    },
    "triplet and miner": lambda: {
        "loss": losses.TripletMarginLoss(margin=0.2, distance=EUCLIDEAN),
        "miner": miners.TripletMarginMiner(margin=0.3, type_of_triplets="semihard", distance=EUCLIDEAN),
    },
}


@pytest.mark.parametrize("name", ["ours", *LIBRARY])
@pytest.mark.parametrize("rows", [4, 12, 14])
def test_the_flavour_pml_agrees_with_the_librarys_class(name, rows):
    given = LIBRARY[name]() if name in LIBRARY else {}
    if VERSION == 3 and "miner" in given:
        pytest.skip("version 3 leaves a sample's own copy out before mining")
    theirs = losses.CrossBatchMemory(
        **(given or LIBRARY["contrastive"]()), embedding_size=D, memory_size=rows
    ).double()  # fmt: skip
    margins = {} if given else {"pos_margin": 0.1, "neg_margin": 1.2}
    ours = pml(rows, start_iteration=5, replicate_quirks=True, **margins, **given)
    for embeddings, labels in stream(8):
        gradients = []
        for module in (ours, theirs):
            leaf = embeddings.clone().requires_grad_()
            value = module(leaf, labels)
            value.backward()
            gradients.append((value.detach(), leaf.grad))
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-13)


def averaged_by_loops(batch, others, margins, copies):
    """Compute the means over pulls and over pushes above 0; `copies` are the places of the batch's own rows."""
    pulls, pushes = [], []
    for (vector, label), copy in zip(batch, copies, strict=True):
        for place, (other, other_label) in enumerate(others):
            distance = math.sqrt(max(0.0, 2 - 2 * cosine(vector, other)))
            if label != other_label:
                pushes.append(margins[1] - distance)
            elif place != copy:
                pulls.append(distance - margins[0])
    means = ([value for value in values if value > 0] for values in (pulls, pushes))
    return sum(sum(values) / len(values) for values in means if values)


@pytest.mark.parametrize("margins", [(0.0, 1.0), (0.4, 1.7), (1.2, 0.3), (0.0, 2.0)])
@pytest.mark.parametrize("rows", [12, 13, 3])
def test_the_flavour_pml_agrees_with_loops_over_a_plain_queue(rows, margins):
    module, queue, written = pml(rows, pos_margin=margins[0], neg_margin=margins[1]), [None] * rows, 0
    for embeddings, labels in stream(9):
        batch, copies = list(zip(embeddings.tolist(), labels.tolist(), strict=True)), []
        for row in batch:
            queue[written % rows] = row
            written += 1
        for number in range(B):  # of a batch longer than the queue, the first rows have been overwritten
            copies.append((written - B + number) % rows if B - number <= rows else -1)
        expected = averaged_by_loops(batch, queue[:written], margins, copies)
        assert module(embeddings, labels).item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_a_pull_and_a_push_worked_out_by_hand():
    # Memory: a unit vector of the sample's class at 60 degrees (distance 1), one of another at 90 (sqrt 2), and the
    # sample's own copy, at distance 0 but no pair. Margins -0.4 and 2: (1 + 0.4) + (2 - sqrt 2).
    rows = torch.tensor([[0.5, math.sqrt(0.75)], [0.0, 7.0], [3.0, 0.0]], dtype=torch.float64)
    found = averaged_contrastive(
        rows[2:], torch.tensor([1]), rows, torch.tensor([1, 0, 1]), torch.tensor([2]), pos_margin=-0.4, neg_margin=2.0
    )
    assert found.item() == pytest.approx(3.4 - math.sqrt(2))


def test_gradients_of_the_flavour_pml_agree_with_finite_differences():
    (embeddings, labels), (others, other_labels) = stream(2)
    copies = torch.full_like(labels, -1)
    assert torch.autograd.gradcheck(
        lambda e: averaged_contrastive(e, labels, others, other_labels, copies, neg_margin=1.8),
        embeddings.requires_grad_(),
    )


class Tuples(NamedTuple):
    """What a miner of version 3 returns."""

    pos_anchors: torch.Tensor
    positives: torch.Tensor
    neg_anchors: torch.Tensor
    negatives: torch.Tensor


class NamingMiner(torch.nn.Module):
    def forward(self, embeddings, labels, memory, memory_labels):
        same = labels[:, None] == memory_labels
        return Tuples(*torch.where(same), *torch.where(~same))


def test_named_tuples_of_a_miner_are_the_pairs_that_plain_ones_are():
    loss = losses.ContrastiveLoss(pos_margin=0.1, neg_margin=1.2)
    for module in (plain := pml(12, loss=loss), named := pml(12, loss=loss, miner=NamingMiner())):
        module.values = [module(*batch).item() for batch in stream(6)]
    assert plain.values == named.values


def test_a_samples_pair_with_itself_is_excluded_for_a_lone_sample_and_for_a_batch_longer_than_the_memory():
    one = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    assert pml(5)(one, torch.tensor([1])).item() == 0
    assert pml(5, loss=losses.MultiSimilarityLoss())(one, torch.tensor([1])).item() == 0
    # Memory of 2 rows, the last two: all are of one class and equal except the first, whose similarity to them is 0.
    # With alpha = 1 and base = 0 the three have log(1 + 2 exp 0), log(1 + exp -1), log(1 + exp -1).
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    loss = losses.MultiSimilarityLoss(alpha=1, beta=1, base=0)
    value = pml(2, loss=loss)(rows, torch.tensor([1, 1, 1])).item()
    assert value == pytest.approx((math.log(3) + 2 * math.log(1 + math.exp(-1))) / 3)
    # Distances: sqrt 2 twice for the first, 0 for the others, which add nothing to the average of pulls.
    assert pml(2)(rows, torch.tensor([1, 1, 1])).item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("flavour", ["authors", "pml"])
def test_duplicates_one_class_singletons_and_a_lone_sample_have_finite_gradients_in_float32(flavour):
    row = torch.tensor([[0.3, -0.2, 0.7]])
    for embeddings, labels, expected in (
        (row.repeat(40, 1), [0] * 40, 0.0),  # duplicates of one class have distance 0
        (row.repeat(40, 1), range(40), None),
        (torch.eye(3), [0, 1, 2], None),
        (row, [5], 0.0),
        (row.repeat(40, 1) * torch.logspace(-3, 3, 40)[:, None], [0] * 40, None),
    ):
        module = XBM(D, 70, memory_fraction=1, flavour=flavour)
        for _ in range(3):
            leaf = embeddings.clone().requires_grad_()
            loss = module(leaf, torch.tensor(list(labels)))
            loss.backward()
            assert loss.isfinite() and leaf.grad.isfinite().all()
            if expected is not None:
                assert loss.item() == expected and leaf.grad.abs().max() == 0


@pytest.mark.parametrize("flavour", ["authors", "pml"])
def test_autocast_changes_no_bit_and_half_precision_embeddings_are_used_in_float32(flavour):
    def total(convert, autocast):
        module = XBM(D, 10, memory_fraction=1, flavour=flavour)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return torch.stack([module(convert(embeddings), labels) for embeddings, labels in stream(5)])

    assert torch.equal(total(torch.Tensor.float, True), total(torch.Tensor.float, False))
    half = total(torch.Tensor.bfloat16, False)
    assert half.dtype == torch.float32
    assert torch.equal(half, total(lambda e: e.bfloat16().float(), False))
    assert total(torch.Tensor.double, False).dtype == torch.float64


@pytest.mark.parametrize("flavour", ["authors", "pml"])
def test_a_nan_embedding_is_not_hidden(flavour):
    (embeddings, labels), *_ = stream(1)
    embeddings[1, 1] = math.nan
    assert make(10, flavour=flavour)(embeddings, labels).isnan()


def test_the_memory_is_a_fraction_of_the_images_and_at_least_one_row():
    sizes = [len(XBM(D, images, memory_fraction=share).memory) for images, share in ((59_551, 0.92), (7, 0.05), (9, 1))]
    assert sizes == [54_787, 1, 9]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"flavour": "library"}, "'library' of XBM must be one of authors, pml"),
        ({"flavour": "pml", "miner": torch.nn.Identity()}, "a miner, but loss=None"),
        ({"flavour": "pml", "loss": torch.nn.Identity(), "pos_margin": 0.0}, "pos_margin=0.0 of XBM has no effect"),
        ({"flavour": "pml", "loss": torch.nn.Identity(), "neg_margin": 1.0}, "neg_margin=1.0 .* Identity replaces"),
        ({"memory_fraction": 0.0}, "memory_fraction=0.0"),
        ({"memory_fraction": 1.5}, "memory_fraction=1.5"),
        ({"pos_margin": -0.2}, "pos_margin=-0.2"),
        ({"neg_margin": 2.1}, "neg_margin=2.1"),
        ({"weight": -1.0}, "weight=-1.0"),
        ({"weight": math.inf}, "weight=inf"),
        ({"start_iteration": -1}, "start_iteration=-1"),
        ({"start_iteration": 1.5}, "start_iteration=1.5"),
    ],
)
def test_an_argument_out_of_range_is_refused_with_its_value(settings, named):
    with pytest.raises(UserError, match=named):
        XBM(D, 10, **{"memory_fraction": 1} | settings)


def test_a_margin_that_the_loss_has_too_is_accepted_and_so_is_one_that_the_authors_version_reads():
    loss = losses.ContrastiveLoss(pos_margin=0.125)
    assert pml(4, loss=loss, pos_margin=0.125).loss is loss
    with pytest.raises(UserError, match=r"pos_margin=0.25 of XBM has no effect: ContrastiveLoss replaces"):
        pml(4, loss=loss, pos_margin=0.25)
    assert make(4, loss=loss, pos_margin=0.25).margins == {"pos_margin": 0.25, "neg_margin": 1.0}


def test_warns_of_an_unused_memory_even_after_resuming():
    module = make(10, start_iteration=3)
    warning = ["the memory never came on: it starts after start_iteration=3 steps"]
    for number, batch in enumerate(stream(5)):
        resumed = make(10, start_iteration=3)
        resumed.load_state_dict(module.state_dict())
        assert module.warnings() == resumed.warnings() == (warning if number <= 3 else [])
        module(*batch)


def test_a_record_has_whether_the_memory_was_empty_at_the_best_epoch():
    module, history = make(10, start_iteration=3), []
    for epoch, batch in enumerate(stream(5)):
        history.append({"epoch": epoch, "diagnostics": module.diagnostics()})
        module(*batch)
    empty = [module.record_fields(history, epoch)["best_epoch_in_warmup"] for epoch in range(5)]
    assert empty == [True, True, True, True, False]
    assert module.record_fields(history, None) == {"best_epoch_in_warmup": None}


def test_the_flavour_pml_has_its_memory_from_the_first_step_on():
    module = pml(10, start_iteration=1000)
    module(*next(stream(1)))
    assert module.warnings() == []
