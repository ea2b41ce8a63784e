"""Losses that break one demand each: the contract's check says which."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.losses import contract
from benchmark.losses.contract import CHECKS, DIM, NUM_CLASSES, Subject, course_of


class Fine(nn.Module):
    """Cross-entropy over cosines to proxies."""

    def __init__(self) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(NUM_CLASSES, DIM, generator=torch.Generator().manual_seed(0)))
        self.calls = 0

    def cosines(self, embeddings: Tensor) -> Tensor:
        return functional.normalize(embeddings, dim=1) @ functional.normalize(self.proxies, dim=1).T

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(8 * self.cosines(embeddings), labels)


def changed(change: Callable[[Fine, Tensor, Tensor], Tensor]) -> type[Fine]:
    class Changed(Fine):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return change(self, embeddings, labels)

    return Changed


def counted(self: Fine, e: Tensor, y: Tensor) -> Tensor:
    self.calls += 1
    return Fine.forward(self, e, y) * (1 + self.calls)


def of_positives(self: Fine, e: Tensor, y: Tensor) -> Tensor:
    same = (y[:, None] == y) & ~torch.eye(len(y), dtype=torch.bool)
    return Fine.forward(self, e, y) + (torch.cdist(e, e) * same).sum() / same.sum()


BROKEN: dict[str, tuple[Callable[[Fine, Tensor, Tensor], Tensor], str]] = {
    "is_finite_and_reaches_what_is_trained": (
        lambda self, e, y: Fine.forward(self, e.detach(), y), "No gradient reaches the embeddings"),
    "falls_in_a_few_steps": (
        lambda self, e, y: 2 * Fine.forward(self, e, y).detach() - Fine.forward(self, e, y), "Is its gradient that"),
    "is_finite_for_unusual_batches": (of_positives, "for a batch of singletons"),
    "does_not_depend_on_order": (
        lambda self, e, y: (Fine.forward(self, e, y) + functional.cosine_similarity(e[0], e[1], dim=0)),
        "for a batch in another order"),
    "draws_nothing": (lambda self, e, y: Fine.forward(self, e, y) * (1 + torch.rand(())), "generator of torch"),
    "is_repeatable": (lambda self, e, y: Fine.forward(self, e, y) * (1 + torch.rand(())), "from step 0 on"),
    "resumes": (counted, "Resumed after 1 steps"),
    "waits_for_no_device": (
        lambda self, e, y: Fine.forward(self, e, y) * (1 + self.cosines(e).max().item()), "wait for the GPU"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_loss_that_breaks_a_demand_is_told_so(name: str) -> None:
    change, says = BROKEN[name]
    (problem, *_) = getattr(contract, name)(course_of(Subject(changed(change), learning_rate=0.01)))
    assert says in problem


def test_a_loss_that_keeps_all_demands_hears_nothing() -> None:
    course = course_of(Subject(Fine, learning_rate=0.01))
    assert {demand: check(course) for demand, check in CHECKS.items()} == {demand: [] for demand in CHECKS}


def test_a_value_that_depends_on_positions_alone_is_found() -> None:
    first = changed(lambda self, e, y: Fine.forward(self, e, y) + e[0].detach().norm())  # its gradients do not
    problems = contract.does_not_depend_on_order(course_of(Subject(first, learning_rate=0.01)))
    assert len(problems) == 2 and "for the same batch in another order" in problems[0]


def test_a_learning_rate_and_parameters_belong_together() -> None:
    (lacks,) = contract.has_a_learning_rate_if_it_learns(course_of(Subject(Fine)))
    assert "parameters (proxies), but its YAML gives them no learning rate" in lacks

    class Bare(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return functional.normalize(embeddings).sum()

    (has,) = contract.has_a_learning_rate_if_it_learns(course_of(Subject(Bare, learning_rate=0.1)))
    assert "optimizer: null" in has


def test_a_training_that_is_not_finite_names_the_step() -> None:
    bad = changed(lambda self, e, y: Fine.forward(self, e, y) / (0 if y.sum() else 1))
    with pytest.raises(FloatingPointError, match="The loss is not finite at step 0"):
        course_of(Subject(bad, learning_rate=0.01))


def test_diagnostics_that_are_no_floats_are_named() -> None:
    class Counting(Fine):
        def diagnostics(self) -> dict[str, float]:
            return {"calls": 3}

    (problem,) = contract.reports_plain_values(course_of(Subject(Counting, learning_rate=0.01)))
    assert problem.startswith("diagnostics() returns {'calls': 3}")
