"""Score the models of a run on the test classes, and save their embeddings for figures."""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmark.core import records
from benchmark.core.records import JsonObject
from benchmark.images import Images
from benchmark.images.batches import embed
from benchmark.protocol.modes import score
from benchmark.protocol.neighbours import nearest_neighbours
from benchmark.study.study import Study
from benchmark.study.testset import OpenedTestSet
from benchmark.training.loop import read_state
from benchmark.training.precision import forward

METRICS = ("map_at_r", "precision_at_1", "r_precision")
NUM_NEIGHBOURS = 10
Mismatch = Callable[[JsonObject | None], str]  # how the identity in a file differs from the expected one


def score_models(
    study: Study, directory: Path, test: OpenedTestSet, mismatches: Sequence[Mismatch], tick: Callable[[], None]
) -> tuple[dict[str, object], str]:
    """Score the best-epoch models of a run, and save `embeddings.npz` for figures.

    Args:
        study: the study, with the setting that was trained.
        directory: folder of the run, with one folder per fold.
        test: the N test images and their labels.
        mismatches: one function per fold that describes how the identity of a weights file differs from that of the
            fold's training.
        tick: called for each batch.

    Returns:
        The scores by mode, and the SHA-256 of `embeddings.npz`.

    Raises:
        CorruptFileError: a weights file is damaged, does not fit its model, or belongs to another training.
        FileNotFoundError: a weights file is missing.
        WriteError: `embeddings.npz` cannot be written.
    """
    weights = [(directory / f"fold_{fold}" / "best.pt", mismatch) for fold, mismatch in enumerate(mismatches)]
    embeddings = torch.stack([_embed(study, path, mismatch, test.images, tick) for path, mismatch in weights])
    loss = study.config.loss  # embeddings: (folds, N, D)
    scores = score(
        embeddings, test.labels, METRICS, metric=loss.retrieval, is_query=test.is_query, **loss.retrieval_options
    )
    neighbours = nearest_neighbours(
        embeddings, test.is_query, NUM_NEIGHBOURS, metric=loss.retrieval, threads=study.config.threads,
        **loss.retrieval_options,
    )  # fmt: skip
    kept = {
        "embeddings": embeddings.cpu().numpy().astype(np.float16),
        "labels": test.labels.cpu().numpy(),
        "neighbours": neighbours.astype(np.int32),
    }
    if test.is_query is not None:
        kept["is_query"] = test.is_query.cpu().numpy()
    for fold, (path, mismatch) in enumerate(weights):
        state = read_state(path, torch.device("cpu"), mismatch)
        kept |= {f"fold_{fold}.{name}": value.numpy().astype(np.float16) for name, value in state["loss"].items()}
    buffer = io.BytesIO()
    np.savez(buffer, **kept)  # type: ignore[arg-type]
    records.write_whole(directory / "embeddings.npz", buffer.getvalue())
    return {**scores}, hashlib.sha256(buffer.getvalue()).hexdigest()


def _embed(study: Study, path: Path, mismatch: Mismatch, images: Images, tick: Callable[[], None]) -> Tensor:
    """Embeddings (N, D) from the weights of a fold, L2-normalised if retrieval is by cosine."""
    state = read_state(path, images.device, mismatch)
    trunk = study.make_trunk(images.channels, seed=0).to(images.device)
    head = study.make_head(trunk.out_features, seed=0).to(images.device)
    try:
        trunk.load_state_dict(state["trunk"])
        head.load_state_dict(state["head"])
        if not all(isinstance(value, Tensor) for value in state["loss"].values()):
            raise TypeError("a weight of the loss is not a tensor")
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        kept = records.quarantine(path)  # else the next command would use it again
        raise records.CorruptFileError(
            f"{path} does not fit its model: {str(error).splitlines()[0]}. It is kept as {kept.name}. Run the same "
            "command again: it trains this fold again."
        ) from error

    def embedder(batch: Tensor) -> Tensor:
        tick()
        return forward(trunk, head, batch, study.config.precision)

    embeddings = embed(embedder, images, trunk, head)
    return torch.nn.functional.normalize(embeddings, dim=1) if study.config.loss.retrieval == "cosine" else embeddings
