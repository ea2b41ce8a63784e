"""What the harness demands of every loss, as checks on toy batches that answer with sentences.

`make check-loss` prints what they find for one loss, and `tests/losses/test_contracts.py` runs them on all of ours. A
check returns what is wrong, empty if nothing is; it never changes the loss that it is given.
"""

import copy
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.losses import HasAfterStep, HasDiagnostics, HasRecordFields, HasWarnings
from benchmark.losses.pretended_device import PretendedDevice

NUM_CLASSES, DIM, NUM_IMAGES = 8, 6, 40  # of the toy batches
SUPERS = (4, 4, 2, 2, 9, 9, 9, 4)  # super class of each class
SCHEDULE = {"start_iteration": 2, "warmup_iterations": 2, "num_coarse": 3, "num_coarse_bounds": [2, 4],
            "update_every": 2, "update_every_bounds": [1, 4]}  # fmt: skip  # for the files of conf/loss/schedule
UNUSUAL = {
    "one class": [3] * 12,
    "two classes": [0, 5] * 6,
    "singletons, without any positive": [0, 1, 2, 3, 4, 5, 6, 7],
    "one sample": [2],
    "two samples of one class": [4, 4],
}
TRAINED = 4  # steps after which most checks are made; by then, hierarchies and memories are in use
RESUMED = (1, 3, 6)  # steps after which a training is resumed, for `AFTERWARDS` more
AFTERWARDS = 4
STEPS = RESUMED[-1] + AFTERWARDS
Problems = list[str]


@dataclass(frozen=True)
class Subject:
    """A loss to check.

    Attributes:
        make: builds it, always with the same initial state, for embeddings (B, `DIM`) and `NUM_CLASSES` classes.
        head: the layer that it requires after features (B, `DIM`), or the identity.
        learning_rate: rate of its own parameters; None without any.
        folders: where the package that defines it is, if it is not ours; problems name lines in them.
    """

    make: Callable[[], nn.Module]
    head: Callable[[Tensor], Tensor] = field(default_factory=nn.Identity)
    learning_rate: float | None = None
    folders: tuple[str, ...] = ()


def toy_batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (12, 6) with norms from 1e-3 to 1e3, two of them equal, and labels (12,) of 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(12, DIM, generator=generator) * torch.logspace(-3, 3, 12)[:, None]
    features[4] = features[0]
    return features, torch.tensor([0, 1, 2, 3] * 3)


def after_step(module: nn.Module) -> None:
    """Do what the training loop does after an optimiser's step."""
    if isinstance(module, HasAfterStep):
        module.after_step()


def optimizer_of(module: nn.Module, learning_rate: float | None) -> torch.optim.Optimizer | None:
    """RMSprop over the loss's parameters; None if there are none."""
    parameters = list(module.parameters())
    return torch.optim.RMSprop(parameters, lr=learning_rate or 1e-3) if parameters else None


def train(
    module: nn.Module, head: Callable[[Tensor], Tensor], steps: int, optimizer: torch.optim.Optimizer | None,
    first: int = 0,
) -> list[float]:  # fmt: skip
    """Train the loss's parameters on toy batches, and return the loss of every step, a scalar each.

    Args:
        module: the loss; it is changed.
        head: maps features (B, `DIM`) to embeddings.
        steps: number of steps.
        optimizer: updates its parameters; None if it has none.
        first: number of the first step, on which its batch depends.

    Raises:
        FloatingPointError: a loss, gradient or parameter is not finite.
    """
    losses = []
    for step in range(first, first + steps):
        features, labels = toy_batch(step)
        loss = module(head(features.requires_grad_()), labels)
        for parameter in module.parameters():
            parameter.grad = None
        if loss.requires_grad:
            loss.backward()
        if optimizer:
            optimizer.step()
        after_step(module)
        gradient = features.grad if features.grad is not None else torch.zeros(())
        named = {"loss": loss, "gradient of the embeddings": gradient, **dict(module.named_parameters())}
        for name, values in named.items():
            if not bool(values.isfinite().all()):
                raise FloatingPointError(f"The {name} is not finite at step {step} of a training on toy batches.")
        losses.append(loss.item())
    return losses


@dataclass(frozen=True)
class Course:
    """One training of a loss from its start, which the checks share; nothing in it may be changed.

    Attributes:
        subject: the loss.
        after: by the number of steps, the module and its optimiser's state.
        losses: the loss of every step.
        drew: names of the global generators that moved.
    """

    subject: Subject
    after: dict[int, tuple[nn.Module, Any]]
    losses: list[float]
    drew: tuple[str, ...]

    def module(self, steps: int = TRAINED) -> nn.Module:
        """A copy of the loss after so many steps."""
        return copy.deepcopy(self.after[steps][0])


def course_of(subject: Subject) -> Course:
    """Train a loss for as many steps as the checks need.

    Raises:
        FloatingPointError: a loss, gradient or parameter is not finite.
    """
    before = _generators()
    module = subject.make()
    optimizer = optimizer_of(module, subject.learning_rate)
    after: dict[int, tuple[nn.Module, Any]] = {}
    losses: list[float] = []
    for number in range(STEPS):
        if number in (0, TRAINED, *RESUMED):
            after[number] = copy.deepcopy((module, optimizer and optimizer.state_dict()))
        losses += train(module, subject.head, 1, optimizer, number)
    now = _generators()
    return Course(subject, after, losses, tuple(name for name in now if now[name] != before[name]))


def _generators() -> dict[str, bytes]:
    """The states of the global generators, by name."""
    return {"torch": torch.get_rng_state().numpy().tobytes(), "numpy": pickle.dumps(np.random.get_state())}


# -- the checks -------------------------------------------------------------------------------------------------------


def draws_nothing(course: Course) -> Problems:
    """Problems with the global generators: how often a loss draws must not change what others draw."""
    return [
        f"It draws from the global generator of {name}, so that a resumed training, or one beside another, differs. "
        "Draw from a torch.Generator of its own, seeded by the argument seed (needs: [seed])."
        for name in course.drew
    ]


def is_repeatable(course: Course) -> Problems:
    """Problems with a second training from the start, whose losses must be equal bit for bit."""
    again = course_of(course.subject).losses
    different = [step for step, pair in enumerate(zip(course.losses, again, strict=True)) if pair[0] != pair[1]]
    return [
        f"A second training from the same seed has another loss from step {different[0]} on. Draw random numbers from "
        "a torch.Generator of its own, seeded by the argument seed, and keep no state outside of the module."
    ] if different else []  # fmt: skip


def has_a_learning_rate_if_it_learns(course: Course) -> Problems:
    """Problems with `optimizer`: it has a learning rate exactly if the loss has parameters."""
    names = [name for name, _ in course.after[0][0].named_parameters()]
    if bool(names) == bool(course.subject.learning_rate):
        return []
    if names:
        return [f"It has parameters ({', '.join(names)}), but its YAML gives them no learning rate: "
                'optimizer: {lr: "${loss.setting.NAME}"}.']  # fmt: skip
    return ["Its YAML gives a learning rate for its parameters, but it has none. Register them with nn.Parameter, or "
            "write optimizer: null."]  # fmt: skip


def step(
    module: nn.Module, head: Callable[[Tensor], Tensor], features: Tensor, labels: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """A scalar loss, and its gradients with respect to features (B, D) and parameters; None for a missing one.

    Args:
        module: the loss, which may keep the batch.
        head: maps features to embeddings.
        features: (B, D).
        labels: (B,).
    """
    leaves = [features.clone().requires_grad_(), *module.parameters()]
    loss: Tensor = module(head(leaves[0]), labels)
    if not loss.requires_grad:
        return loss, [None] * len(leaves)
    return loss, list(torch.autograd.grad(loss, leaves, allow_unused=True))


def is_finite_and_reaches_what_is_trained(course: Course) -> Problems:
    """Problems with a batch whose embeddings have norms from 1e-3 to 1e3, two of them equal."""
    module = course.module()
    loss, gradients = step(module, course.subject.head, *toy_batch())
    if loss.shape != ():
        return [f"It returns a tensor of shape {tuple(loss.shape)}: return a scalar, such as loss.mean()."]
    if not bool(loss.isfinite()):
        return [f"It is {loss.item()} for embeddings with norms from 1e-3 to 1e3, two of them equal."]
    found = []
    for name, gradient in zip(["embeddings", *(n for n, _ in module.named_parameters())], gradients, strict=True):
        what = "the embeddings" if name == "embeddings" else f"its parameter {name}"
        if gradient is None or not bool(gradient.abs().max() > 0):
            found.append(f"No gradient reaches {what}: is something detached, or not used?")
        if gradient is not None and not bool(gradient.isfinite().all()):
            found.append(f"The gradient of {what} is not finite for embeddings with norms from 1e-3 to 1e3, two of "
                         "them equal: mind square roots and logarithms of 0, and norms.")  # fmt: skip
    return found


def does_not_depend_on_order(course: Course, steps: Iterable[int] = (0, TRAINED)) -> Problems:
    """Problems with a batch that comes in another order.

    Args:
        course: a training.
        steps: numbers of steps after which it is checked.
    """
    features, labels = toy_batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    lengths = features.norm(dim=1, keepdim=True)  # gradients are inversely proportional to feature norms
    found = []
    for number in steps:
        head = course.subject.head
        loss, gradients = step(course.module(number), head, features, labels)
        again, others = step(course.module(number), head, features[order], labels[order])
        if not torch.allclose(again, loss, rtol=1e-5, atol=1e-12):
            found.append(f"After {number} steps, it is {loss.item():.8g} for a batch and {again.item():.8g} for the "
                         "same batch in another order.")  # fmt: skip
        elif gradients[0] is not None and others[0] is not None:
            difference = ((others[0] * lengths[order]) - (gradients[0] * lengths)[order]).abs()
            if bool((difference > 1e-5 + 1e-3 * (gradients[0] * lengths)[order].abs()).any()):
                found.append(f"After {number} steps, its gradients are others for a batch in another order.")
    return found


def falls_in_a_few_steps(course: Course) -> Problems:
    """Problems with twelve steps of Adam at a rate of 0.1 on embeddings and parameters, which must lower the loss."""
    module, before, head = course.module(0), course.module(0), course.subject.head
    features, labels = toy_batch()
    features = functional.normalize(features, dim=1).requires_grad_()
    first = course.module(0)(head(features), labels).item()
    optimizer = torch.optim.Adam([features, *module.parameters()], lr=0.1)
    for _ in range(12):
        optimizer.zero_grad()
        module(head(features), labels).backward()
        optimizer.step()
        after_step(module)
    with torch.no_grad():  # the learnt parameters with the initial memory and hierarchy
        for old, new in zip(before.parameters(), module.parameters(), strict=True):
            old.copy_(new)
    last = before(head(features), labels).item()
    if last < first - 0.1 * abs(first):
        return []
    return [f"Twelve steps of Adam at a rate of 0.1 change it from {first:.4g} to {last:.4g}: it should fall by a "
            "tenth at least. Is its gradient that of its value (detach, a backward of its own)?"]  # fmt: skip


def is_finite_for_unusual_batches(course: Course) -> Problems:
    """Problems with batches of one class, of singletons, of one sample, and of embeddings that are all equal."""
    found = []
    for what, labels in UNUSUAL.items():
        features = toy_batch(3)[0][: len(labels)]
        for rows, unlike in ((features, what), (features[:1].expand(len(labels), -1), f"{what}, all equal")):
            module = course.module()
            for _ in range(2):
                loss, gradients = step(module, course.subject.head, rows, torch.tensor(labels))
                if not bool(loss.isfinite()):
                    found.append(f"It is {loss.item()} for a batch of {unlike}. Without pairs, let it be 0: a mean "
                                 "over nothing is NaN.")  # fmt: skip
                    break
                if not all(g is None or bool(g.isfinite().all()) for g in gradients):
                    found.append(f"A gradient is not finite for a batch of {unlike}.")
                    break
                after_step(module)
    return found


def resumes(course: Course) -> Problems:
    """Problems with a training that goes on from the `state_dict` of the loss and its optimiser."""
    found = []
    for steps in RESUMED:
        module, state = course.after[steps]
        twin = course.subject.make()
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        try:
            twin.load_state_dict(module.state_dict())
        except RuntimeError as error:
            return [f"Its state_dict after {steps} steps cannot be loaded into a new one: {error}"]
        if optimizer := optimizer_of(twin, course.subject.learning_rate):
            optimizer.load_state_dict(copy.deepcopy(state))
        again = train(twin, course.subject.head, AFTERWARDS, optimizer, steps)
        if again != course.losses[steps : steps + AFTERWARDS]:
            found.append(
                f"Resumed after {steps} steps, its losses are others. Everything that training changes belongs into "
                "its state_dict: parameters, and buffers (register_buffer), also counters and a generator's state."
            )
            break
    return found


def reports_plain_values(course: Course) -> Problems:
    """Problems with the types of `diagnostics`, `record_fields` and `warnings`."""
    module, found = course.module(), []
    diagnostics = module.diagnostics() if isinstance(module, HasDiagnostics) else {}
    if not all(type(key) is str and type(value) is float for key, value in diagnostics.items()):
        found.append(f"diagnostics() returns {diagnostics}: give numbers of type float by name.")
    history = [{"epoch": 0, "diagnostics": diagnostics}]
    fields = module.record_fields(history, 0) if isinstance(module, HasRecordFields) else {}
    if not all(type(key) is str and type(value) in (float, bool, type(None)) for key, value in fields.items()):
        found.append(f"record_fields() returns {fields}: give float, bool or None by name.")
    warnings = module.warnings() if isinstance(module, HasWarnings) else []
    if not all(type(warning) is str and not warning.endswith(".") for warning in warnings):
        found.append(f"warnings() returns {warnings}: give clauses without a full stop.")
    return found


def waits_for_no_device(course: Course) -> Problems:
    """Problems on a pretended GPU: tensors of two devices, and reads of values, for which the host would wait."""
    module, (features, labels) = course.module(), toy_batch()
    optimizer = optimizer_of(module, course.subject.learning_rate)
    embeddings = course.subject.head(features).detach()
    with PretendedDevice(course.subject.folders) as device:
        module.to("cuda")
        if optimizer:
            optimizer = optimizer_of(module, course.subject.learning_rate)
        batch, labels = embeddings.to("cuda").requires_grad_(), labels.to("cuda")
        device.clear()
        for _ in range(2):
            loss = module(batch, labels)
            if loss.requires_grad:
                loss.backward()
            if optimizer:
                optimizer.step()
            after_step(module)
    kinds = {
        "mismatch": "mixes tensors of GPU and CPU: make new tensors with device=embeddings.device, and register "
                    "constants as buffers",
        "wait": "makes the CPU wait for the GPU in every step: avoid .item(), boolean masks as indices, nonzero() and "
                "tensors from lists; torch.where and sums weighted by a mask do not wait",
    }  # fmt: skip
    return [f"On a GPU, {place} {why}." for kind, why in kinds.items() for place in device.events[kind]]


CHECKS: dict[str, Callable[[Course], Problems]] = {
    "a scalar, finite, with gradients for embeddings and parameters": is_finite_and_reaches_what_is_trained,
    "a learning rate exactly if it has parameters": has_a_learning_rate_if_it_learns,
    "falls in twelve steps": falls_in_a_few_steps,
    "finite for duplicates, singletons, one class and one sample": is_finite_for_unusual_batches,
    "independent of the order of a batch": does_not_depend_on_order,
    "equal bits from equal seeds": is_repeatable,
    "no draws from a global generator": draws_nothing,
    "resumes bit for bit from its state_dict": resumes,
    "plain values in diagnostics, record fields and warnings": reports_plain_values,
    "no mixed devices and no waiting on a GPU": waits_for_no_device,
}
