"""Score the models of a run on the test classes, and save their embeddings for figures."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmark.core import records
from benchmark.core.pulse import beat
from benchmark.images import Images
from benchmark.images.batches import embed
from benchmark.images.features import FeatureImages
from benchmark.protocol.levels import score_levels
from benchmark.protocol.modes import ModeScores, score
from benchmark.protocol.neighbours import nearest_neighbours
from benchmark.study.frozen import frozen_trunk
from benchmark.study.model_files import Mismatch, read_weights
from benchmark.study.study import Study
from benchmark.study.testset import OpenedTestSet
from benchmark.training.checkpoint import read_state
from benchmark.training.components import HeadModule, TrunkModule
from benchmark.training.precision import forward

METRICS = ("map_at_r", "precision_at_1", "r_precision")
NUM_NEIGHBOURS = 100  # HPL shows ranks up to 32


class MisfitError(records.CorruptFileError):
    """A weights file does not fit its model."""


def score_models(
    study: Study, directory: Path, test: OpenedTestSet, mismatches: Sequence[Mismatch]
) -> tuple[dict[str, object], str]:
    """Score the best-epoch models of a run, and save `embeddings.npz` for figures.

    Args:
        study: the study, with the setting that was trained.
        directory: folder of the run, with one folder per fold.
        test: the N test images and their labels.
        mismatches: one function per fold that describes how the identity of a weights file differs from that of the
            fold's training.

    Returns:
        The scores by mode, those on the levels of the hierarchy if `levels` asks for them, and the SHA-256 of
        `embeddings.npz`.

    Raises:
        CorruptFileError: a weights file is damaged, does not fit its model, or belongs to another training.
        FileNotFoundError: a weights file is missing.
        WriteError: `embeddings.npz` cannot be written.
    """
    weights = [(directory / f"fold_{fold}" / "best.pt", mismatch) for fold, mismatch in enumerate(mismatches)]
    found = []
    for path, mismatch in weights:
        try:
            found.append(embed_test(study, path, mismatch, test.images))
        except MisfitError as error:
            kept_as = records.quarantine(path).name  # else the next command would use it again
            again = f"It is kept as {kept_as}. Run the same command again: it trains this fold again."
            raise records.CorruptFileError(f"{error} {again}") from error
    embeddings = torch.stack(found)
    scores: dict[str, object] = {**_score(study, embeddings, test)}  # embeddings: (folds, N, D)
    if study.config.levels:
        loss = study.config.loss
        scores["levels"] = score_levels(
            embeddings, test.labels, test.super_labels, metric=loss.retrieval, is_query=test.is_query,
            **loss.retrieval_options,
        )  # fmt: skip
    states = [read_state(path, torch.device("cpu"), mismatch)["loss"] for path, mismatch in weights]
    content = for_figures(study, embeddings, test, states)
    records.write_whole(directory / "embeddings.npz", content)
    return scores, hashlib.sha256(content).hexdigest()


def score_images(
    study: Study, weights: Sequence[tuple[Path, Mismatch]], test: OpenedTestSet, images: Images
) -> ModeScores:
    """Score the models of a run on other pixels of the test images, such as corrupted ones.

    Args:
        study: the study, with the setting that was trained.
        weights: for each model, its weights file, and a function that describes how the identity in it differs from
            that of its training.
        test: the N test images and their labels.
        images: N images that replace the test images, in their order.

    Raises:
        MisfitError: a weights file does not fit its model.
        CorruptFileError: a weights file is damaged, or belongs to another training.
        FileNotFoundError: a weights file is missing.
    """
    return _score(study, torch.stack([embed_test(study, path, wrong, images) for path, wrong in weights]), test)


def _score(study: Study, embeddings: Tensor, test: OpenedTestSet) -> ModeScores:
    """The scores of embeddings (F, N, D) of the test images by F models."""
    loss = study.config.loss
    return score(
        embeddings, test.labels, METRICS, metric=loss.retrieval, is_query=test.is_query, **loss.retrieval_options
    )


def for_figures(study: Study, embeddings: Tensor, test: OpenedTestSet, states: Sequence[Mapping[str, Tensor]]) -> bytes:
    """Embeddings of the test classes with what figures show beside them, as the content of an npz file.

    It holds `embeddings` (F, N, D), float16; `labels` (N,); `neighbours` (Q, K), positions of the images nearest to
    each query; `is_query` (N,) if only some images are queries; `class_ids` (C,) and `class_names` (C,); and the state
    of each model's loss, such as `fold_0.proxies`, with the learned owners and centres of a hierarchy. Integers stay
    integers.

    Args:
        study: the study, with the setting that was trained.
        embeddings: (F, N, D), of F models.
        test: the N test images and their labels.
        states: for each model, the `state_dict` of its loss.
    """
    loss = study.config.loss
    neighbours = nearest_neighbours(
        embeddings, test.is_query, NUM_NEIGHBOURS, metric=loss.retrieval,
        **loss.retrieval_options,
    )  # fmt: skip
    kept = {
        "embeddings": embeddings.cpu().numpy().astype(np.float16),
        "labels": test.labels.cpu().numpy(),
        "neighbours": neighbours.astype(np.int32),
    }
    if test.is_query is not None:
        kept["is_query"] = test.is_query.cpu().numpy()
    if names := sorted(test.class_names.items()):
        kept |= {"class_ids": np.array([one for one, _ in names]), "class_names": np.array([name for _, name in names])}
    for model, state in enumerate(states):
        kept |= {f"fold_{model}.{name}": _array(value) for name, value in state.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **kept)  # type: ignore[arg-type]
    return buffer.getvalue()


def _array(tensor: Tensor) -> np.ndarray:
    array = tensor.detach().cpu()
    return array.to(torch.float16).numpy() if array.is_floating_point() else array.numpy()


def for_retrieval(study: Study, embeddings: Tensor) -> Tensor:
    """Embeddings (N, D) as retrieval compares them: L2-normalised if it is by cosine."""
    return torch.nn.functional.normalize(embeddings, dim=1) if study.config.loss.retrieval == "cosine" else embeddings


def embed_test(study: Study, path: Path, mismatch: Mismatch, images: Images) -> Tensor:
    """Embeddings (N, D) of test images by the model in a weights file, as retrieval compares them.

    Args:
        study: the study, with the setting that was trained.
        path: the weights file.
        mismatch: describes how its identity differs from that of the model's training.
        images: the N test images.

    Raises:
        MisfitError: the file does not fit its model.
        CorruptFileError: it is damaged, or belongs to another training.
        FileNotFoundError: there is no such file.
    """
    trunk, head = load_model(study, path, mismatch, images)

    def embedder(batch: Tensor) -> Tensor:
        beat()
        return forward(trunk, head, batch, study.config.precision)

    return for_retrieval(study, embed(embedder, images, trunk, head))


def _check_tensors(state: Mapping[str, object]) -> None:
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise TypeError("a weight of the loss is not a tensor")


def load_model(study: Study, path: Path, mismatch: Mismatch, images: Images) -> tuple[TrunkModule, HeadModule]:
    """The trunk and the head of a weights file, on the device of the images that they will embed.

    Args:
        study: the study, with the setting that was trained.
        path: the weights file.
        mismatch: describes how the identity in the file differs from that of the training.
        images: the images, whose channels and device the model takes.

    Raises:
        MisfitError: the file does not fit its model.
        CorruptFileError: it is damaged, or belongs to another training.
        FileNotFoundError: it is missing.
    """
    state = read_weights(path, images.device, mismatch)
    frozen = study.config.training.views is not None
    whole = frozen_trunk(study, images.channels) if frozen and not isinstance(images, FeatureImages) else None
    trunk = (whole or study.make_trained_trunk(images, seed=0)).to(images.device)
    head = study.make_head(trunk.out_features, seed=0).to(images.device)
    try:
        if whole is None:
            trunk.load_state_dict(state["trunk"])
        head.load_state_dict(state["head"])
        _check_tensors(state["loss"])
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MisfitError(f"{path} does not fit its model: {str(error).splitlines()[0]}.") from error
    return trunk, head
