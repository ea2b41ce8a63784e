"""Exact nearest-neighbour search in blocks of queries, with a defined order of ties.

Larger scores come first, and among equal scores the lower reference index comes first (as in faiss). Identical
references always get equal scores. A matrix product alone may round identical pairs of vectors differently in different
rows, so a duplicate takes its score from the first reference that equals it.

Scores are IEEE float32 products even where training has enabled TF32, which would change a metric by up to 2e-4.
Hyperbolic distances are differences of products, and these are computed in float64.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from benchmark.core.pulse import beat
from benchmark.protocol.hyperbolic import add_distances, check_ball

CLOSE = 0.5  # squared length of the mean of unit vectors from which on they are centred; equal vectors have 1
METRICS = ("cosine", "l2", "hyperbolic")
_LOW = 0xFFFFFFFF  # bits of a 64-bit key that hold the column


class Search:
    """Scores of queries against references, one block of rows at a time; a larger score is nearer.

    "cosine" is the inner product of the unit vectors; a zero vector scores 0 with everything. Where these vectors lie
    close together, they are centred on the mean m of the references first, since float32 does not tell cosines near 1
    apart: for one query, q.r differs from (q - m).(r - m) + m.r by a constant. "l2" gives the order of the Euclidean
    distance: for one query, -|q - r|^2 / 2 differs from q.r - |r|^2 / 2 by a constant. Both sides are centred here too,
    which changes no distance and avoids the loss of precision far from the origin. "hyperbolic" is minus the distance
    in a Poincare ball, or minus the sum of such distances: points of several models cannot be concatenated to points of
    one ball, so D is split into equal `parts`, each of which is a point.

    Args:
        queries: (Q, D) finite vectors of any floating type.
        references: (G, D) finite vectors; None: the queries are searched among themselves, each with score -inf for
            itself.
        metric: "cosine", "l2" or "hyperbolic".
        block: largest number of rows in a call of `scores`.
        columns: (G,), the reference of each column of the scores; None: in their order.
        curvature: c of the ball of radius 1 / sqrt(c), for "hyperbolic" only.
        parts: number of points in one vector, for "hyperbolic" only; a divisor of D.

    Raises:
        ValueError: the metric is unknown or does not accept these options, or vectors are not finite, too large for a
            squared length in float32, or outside the ball.
        UserError: the curvature is not finite or not above 0.
    """

    def __init__(
        self,
        queries: Tensor,
        references: Tensor | None,
        metric: str,
        block: int,
        *,
        columns: Tensor | None = None,
        curvature: float | None = None,
        parts: int = 1,
    ) -> None:
        self.excludes_itself = references is None
        self._offsets: Tensor | None = None  # (G,) added to the products
        self._zeros: Tensor | None = None  # (Q,) whether a query is zero, where that has to be looked up
        self._curvature, self._parts = curvature, parts
        _check_options(metric, curvature, parts, queries.shape[1])
        queries = _finite(queries, "queries")
        references = queries if references is None else _finite(references.to(queries.device), "gallery")
        if metric == "cosine":
            self._queries = _unit(queries)
            self._references = self._queries if self.excludes_itself else _unit(references)
            if self._references.mean(dim=0, dtype=torch.float64).square().sum() > CLOSE:
                self._centre_unit_vectors(queries, references)
        elif metric == "l2":
            mean = references.double().mean(dim=0)
            self._queries = (queries - mean).float().add_(0.0)
            self._references = (references - mean).float().add_(0.0)
            self._offsets = self._references.square().sum(dim=1).mul_(-0.5)
            if not torch.isfinite(self._offsets).all():
                raise ValueError('Squared lengths overflow float32; scale the embeddings down or use metric="cosine".')
        else:
            self._queries = _in_ball(queries, curvature, parts, "queries")
            self._references = (
                self._queries if self.excludes_itself else _in_ball(references, curvature, parts, "gallery")
            )
        self._places: Tensor | None = None  # (G,), the column of each reference
        if columns is not None:
            self._places = torch.empty_like(columns).scatter_(0, columns, torch.arange(len(columns)).to(columns))
            self._references = self._references.index_select(0, columns)
            self._offsets = None if self._offsets is None else self._offsets[columns]
            if self.excludes_itself:
                self._queries = self._references
                self._zeros = None if self._zeros is None else self._zeros[columns]
        self._copies, self._originals = _copies(self._references)
        self._buffer = _empty((min(block, len(queries)), len(references)), queries.device)

    def _centre_unit_vectors(self, queries: Tensor, references: Tensor) -> None:
        """Centre the unit vectors of queries (Q, D) and references (G, D), normalised in float64 for that."""
        units = _unit(references.double())
        mean = units.mean(dim=0)
        self._references = (units - mean).float().add_(0.0)
        self._offsets = (units - mean).mv(mean).float()
        if self.excludes_itself:
            self._queries = self._references
        else:
            self._queries = (_unit(queries.double()) - mean).float().add_(0.0)
        self._zeros = ~queries.any(dim=1)

    def scores(self, rows: Tensor) -> Tensor:
        """Return scores (B, G) of the queries at `rows` (B,); the next call overwrites them."""
        beat()
        if self.excludes_itself and self._places is not None:
            rows = self._places[rows]
        queries, out = self._queries.index_select(0, rows), self._buffer[: len(rows)]
        if self._curvature is not None:
            add_distances(out.zero_(), queries, self._references, curvature=self._curvature, parts=self._parts)
            out.neg_()
        elif _numpy_is_faster(out):
            np.matmul(queries.numpy(), self._references.numpy().T, out=out.numpy())
        else:
            with ieee_products():
                torch.mm(queries, self._references.T, out=out)
        if self._offsets is not None:
            out += self._offsets
        if self._zeros is not None:
            out[self._zeros[rows]] = 0.0
        if len(self._copies):
            out[:, self._copies] = out[:, self._originals]
        if self.excludes_itself:
            out[torch.arange(len(rows), device=out.device), rows] = -torch.inf
        return out

    def in_order(self, scores: Tensor) -> Tensor:
        """Return scores (B, G) with their columns in the order of the references."""
        return scores if self._places is None else scores[:, self._places]


def _empty(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Return an uninitialised float32 matrix.

    On a CPU, numpy allocates it, since numpy asks for huge pages and torch does not. With pages of 4 kB, the product
    and the search of a large block take a tenth longer.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, dtype=torch.float32, device=device)


def nearest(scores: Tensor, depth: Tensor) -> Tensor:
    """Reference indices (B, K) whose first depth[b] entries in row b are its nearest, in order; K >= max(depth).

    One extra score is fetched, which reveals a tie across the cut. In that case the fetched indices may not be the
    lowest of the tied ones, and the whole row is searched. This is rare unless a model has collapsed.

    Args:
        scores: (B, G), larger is nearer.
        depth: (B,), number of neighbours needed for each row, 1 .. G.
    """
    fetched = _largest(scores, min(int(depth.max()) + 1, scores.shape[1]))
    keys = _descending(_keys(scores, fetched))
    columns, levels = _LOW - (keys & _LOW), keys >> 32
    cut = levels.gather(1, depth[:, None] - 1)  # (B, 1)
    crosses = (levels[:, -1:] == cut)[:, 0].nonzero()[:, 0]
    for rows in crosses.split(32):  # a few rows at a time, since each needs G integers
        last = columns[rows].gather(1, depth[rows, None] - 1)
        num_above = (levels[rows] > cut[rows]).sum(dim=1, keepdim=True)
        columns[rows] = _fill_cut(scores[rows], columns[rows], num_above, last)
    return columns


def _largest(scores: Tensor, k: int) -> Tensor:
    """Return the columns (B, k) of the k largest scores of each row, unordered; ties at the cut are broken arbitrarily.

    A row is split into strided chunks. Each of its k largest values is in a chunk whose maximum is among the k largest
    maxima, so only these chunks are searched. With about sqrt(G / 2k) columns per chunk, both steps take equally long.
    """
    num_rows, num_columns = scores.shape
    size = int((num_columns / (2 * k)) ** 0.5)
    if size < 2:
        return _select(scores, k)
    num_chunks = num_columns // size
    maxima = scores[:, : size * num_chunks].unflatten(1, (size, num_chunks)).amax(dim=1)  # (B, chunks)
    steps = torch.arange(0, size * num_chunks, num_chunks, device=scores.device)
    columns = (_select(maxima, k)[:, None, :] + steps[:, None]).flatten(1)
    rest = torch.arange(size * num_chunks, num_columns, device=scores.device).expand(num_rows, -1)
    columns = torch.cat([columns, rest], dim=1)
    return columns.gather(1, _select(scores.gather(1, columns), k))


def _select(values: Tensor, k: int) -> Tensor:
    if not _numpy_is_faster(values):
        return values.topk(k, dim=1, sorted=False).indices
    split = values.shape[1] - k
    return torch.from_numpy(np.argpartition(values.numpy(), split, axis=1)[:, split:])


def _descending(keys: Tensor) -> Tensor:
    if not _numpy_is_faster(keys):
        return keys.sort(dim=1, descending=True).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=1)).flip(1)


def by_numpy(vectors: Tensor) -> bool:
    """Whether vectors (N, D) are searched by numpy."""
    return _numpy_is_faster(vectors)


def _numpy_is_faster(tensor: Tensor) -> bool:
    """On a CPU, numpy's product (OpenBLAS) takes 0.65 to 1 times as long as torch's, and its partition a third.

    Its sort of short rows takes a tenth.
    """
    return tensor.device.type == "cpu"


def _keys(scores: Tensor, columns: Tensor) -> Tensor:
    """Return sort keys (B, K): a larger score gives a larger key and, among equal scores, so does a lower column.

    The bits of a float sort like the float itself once those of negative numbers are flipped; adding 0.0 turns -0.0
    into 0.0.
    """
    bits = (scores.gather(1, columns) + 0.0).view(torch.int32)
    levels = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (levels.long() << 32) | (_LOW - columns)


def _fill_cut(scores: Tensor, columns: Tensor, num_above: Tensor, last: Tensor) -> Tensor:
    """Refill the ordered columns (b, K) with the lowest indices of the row that tie with the column `last` (b, 1).

    Args:
        scores: (b, G).
        columns: (b, K), correct in the first num_above positions.
        num_above: (b, 1), number of columns that score higher than `last`.
        last: (b, 1), a column whose score is the one at the cut.
    """
    indices = torch.arange(scores.shape[1], device=scores.device)
    tied = torch.where(scores == scores.gather(1, last), indices, scores.shape[1])
    tied = tied.topk(columns.shape[1], dim=1, largest=False, sorted=True).values
    place = torch.arange(columns.shape[1], device=scores.device) - num_above  # (b, K), 0 at the first tied column
    return torch.where(place < 0, columns, tied.gather(1, place.clamp(min=0)))


def _check_options(metric: str, curvature: float | None, parts: int, num_dimensions: int) -> None:
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; allowed are {', '.join(map(repr, METRICS))}.")
    if metric != "hyperbolic":
        if curvature is not None or parts != 1:
            raise ValueError(f"curvature={curvature} and parts={parts} belong to 'hyperbolic', but metric={metric!r}.")
        return
    if curvature is None:
        raise ValueError("metric='hyperbolic' needs the curvature of the ball in which the vectors are points.")
    check_ball(curvature)
    if parts < 1 or num_dimensions % parts:
        raise ValueError(f"parts is {parts}; vectors of {num_dimensions} dimensions must divide into equal parts.")


def _in_ball(points: Tensor, curvature: float | None, parts: int, name: str) -> Tensor:
    lengths = torch.linalg.vector_norm(points.unflatten(1, (parts, -1)), dim=2, dtype=torch.float64)
    outside = (lengths.square() * (curvature or 0.0) >= 1).any(dim=1).nonzero()[:, 0]
    if len(outside):
        raise ValueError(
            f"{len(outside)} of {len(points)} vectors in {name} lie outside the ball of curvature {curvature}, the "
            f"first at index {int(outside[0])}; embeddings must come from the hyperbolic head, and not be normalised."
        )
    return points + 0.0


def _finite(vectors: Tensor, name: str) -> Tensor:
    vectors = vectors.float()
    if torch.linalg.vector_norm(vectors, dim=1).isfinite().all():
        return vectors
    bad = (~(vectors.amax(dim=1).isfinite() & vectors.amin(dim=1).isfinite())).nonzero()[:, 0]  # both propagate NaN
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(vectors)} vectors in {name} are not finite in float32, the first at index "
            f"{int(bad[0])}; a model that diverged has no score."
        )
    return vectors


def _unit(vectors: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    extreme = ~((length > 1e-15) & (length < 1e15))[:, 0]  # where squares leave the range of float32
    if extreme.any():
        length[extreme] = torch.linalg.vector_norm(vectors[extreme].double(), dim=1, keepdim=True).to(length)
    unit: Tensor = vectors / length.clamp_(min=torch.finfo(torch.float32).tiny)
    return unit.add_(0.0)


def _copies(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices (n,) of vectors that equal an earlier vector, and the index (n,) of the first such vector.

    An integer hash of the bits finds candidates (floating-point sums of equal rows may differ), and a comparison
    decides. The caller must have replaced -0.0 by 0.0, so that equal numbers have equal bits.
    """
    if vectors.shape[1] % 2:
        return _copies(torch.nn.functional.pad(vectors, (0, 1)))
    bits = vectors.view(torch.int64)  # (N, D / 2)
    odd = torch.randint(2**61, bits.shape[1:], generator=torch.Generator().manual_seed(0)).mul_(2).add_(1)
    odd = odd.to(vectors.device)
    on_cpu = bits.device.type == "cpu"  # where torch has a product of integers
    keys = bits.mv(odd) if on_cpu else torch.cat([(part * odd).sum(dim=1) for part in bits.split(4096)])
    ordered = keys.sort().values
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated) == 0:
        return torch.empty_like(repeated), torch.empty_like(repeated)
    candidates = torch.isin(keys, repeated).nonzero()[:, 0]
    _, kind = torch.unique(vectors[candidates], dim=0, return_inverse=True)
    first = torch.full_like(candidates, len(vectors)).scatter_reduce(0, kind, candidates, "amin")[kind]
    return candidates[candidates > first], first[candidates > first]


@contextmanager
def ieee_products() -> Iterator[None]:
    """Compute float32 matrix products on a GPU in float32, whatever the precision of the training."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before
