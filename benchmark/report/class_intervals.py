"""Intervals of runs and ranks of studies over the test classes, from the embeddings that the runs kept.

Kept embeddings have half precision, so a metric that is computed from them differs from the record's in the last
digits; both are shown. Each access is logged in the study's ledger.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import commit
from benchmark.core.records import JsonObject
from benchmark.protocol.bootstrap import over_classes, ranks_over_classes
from benchmark.protocol.comparisons import Rank
from benchmark.protocol.modes import side_by_side
from benchmark.protocol.retrieval import query_scores
from benchmark.report import level_rows
from benchmark.report.figures import kept
from benchmark.report.runs import StudyRuns
from benchmark.study.ledger import log_access

KEPT_EPOCH = "best_on_test"  # the epoch whose test embeddings runs of the traditional protocol keep


def class_intervals(runs: StudyRuns, columns: Sequence[str], resamples: int) -> Iterator[tuple[str, ...]]:
    """Yield for each column and run, as text: the record's value, that of the kept embeddings, and its interval.

    Args:
        runs: a study; under the traditional protocol, only the epoch that is best on test has embeddings.
        columns: columns of its table.
        resamples: number of draws of the classes.

    Raises:
        UserError: no run kept embeddings for these columns, or the ledger cannot be written.
        CorruptFileError: a file of embeddings is damaged, or is not the one that the record was made with.
    """
    facts = runs.stored.facts
    columns, present = _kept(runs, columns)
    values = {column: runs.values(column) for column in columns}
    for run, path in present.items():
        kept_run = _read(runs, run, path, "bootstrap over classes")
        labels, scores = scores_of(kept_run, columns, runs.stored.science, facts.recall_at)
        for column in columns:
            found = over_classes(scores[column], labels, resamples=resamples, confidence=facts.confidence)
            recorded = values[column].get(run)
            yield (
                column, str(run), "-" if recorded is None else f"{recorded:.2f}", f"{100 * found.mean:.2f}",
                f"{100 * found.low:.2f} to {100 * found.high:.2f}", str(found.num_classes),
            )  # fmt: skip


def lowest_classes(runs: StudyRuns, columns: Sequence[str], count: int) -> Iterator[tuple[str, ...]]:
    """Yield for each column and the classes with the lowest scores, as text: id, name, queries, mean and range of runs.

    The score of a class is the mean over its queries, computed from the kept embeddings. A name they lack is "-".

    Args:
        runs: a study, as for `class_intervals`.
        columns: columns of its table.
        count: number of classes.

    Raises:
        UserError: no run kept embeddings for these columns, or the ledger cannot be written.
        CorruptFileError: a file of embeddings is damaged, or is not the one that the record was made with.
    """
    columns, present = _kept(runs, columns)
    read, names = [], dict[int, str]()
    for run, path in present.items():
        kept_run = _read(runs, run, path, "scores of classes")
        read.append(scores_of(kept_run, columns, runs.stored.science, runs.stored.facts.recall_at))
        names |= kept_run.names
    for column in columns:
        each, queries = list[np.ndarray](), np.array([])
        for labels, scores in read:
            scored = ~np.isnan(scores[column])
            classes, place, queries = np.unique(labels[scored], return_inverse=True, return_counts=True)
            each.append(100 * np.bincount(place, scores[column][scored]) / queries)
        by_run = np.stack(each)  # (runs, C)
        for i in np.argsort(by_run.mean(axis=0), kind="stable")[:count]:
            low, high = by_run[:, i].min(), by_run[:, i].max()
            known = str(classes[i]), names.get(int(classes[i]), "-"), str(queries[i])
            yield column, *known, f"{by_run[:, i].mean():.2f}", f"{low:.2f} to {high:.2f}"


def _kept(runs: StudyRuns, columns: Sequence[str]) -> tuple[list[str], dict[int, Path]]:
    """Return those of the columns for which runs kept embeddings, and the file of each run that has one.

    Raises:
        UserError: there are none.
    """
    facts = runs.stored.facts
    columns = [column for column in columns if column.partition(".")[2] not in level_rows.METRICS]
    if not columns:
        raise UserError(f"Classes are scored by a metric of the main table, not by {', '.join(level_rows.METRICS)}.")
    again = command("final-eval", {"study": runs.directory})
    if facts.story == "traditional":
        columns = [column for column in columns if column.startswith(f"{KEPT_EPOCH}.")]
        again = command("traditional", {"study": runs.directory, "keep": "best"})
        if not columns:
            raise UserError(f"This needs test embeddings, which runs keep of the epoch {KEPT_EPOCH} alone.")
    files = {run: runs.paths(run).with_suffix("") / kept.NAME for run in sorted(runs.records)}
    present = {run: path for run, path in files.items() if path.is_file()}
    if not present:
        raise UserError(
            f"No run in {runs.directory} has kept its embeddings ({kept.NAME} beside its folds), which {again} writes "
            "for the runs that it scores. They are not part of the results that come with this project."
        )
    return columns, present


def _read(runs: StudyRuns, run: int, path: Path, looks: str) -> kept.Kept:
    """Log that a run's kept embeddings are looked at, check them, and read them."""
    log_access(runs.directory, {"run": run, "story": "trace", "looks": looks, "commit": commit()})
    _check(path, runs.records[run])
    return kept.read(path)


def ranks_of_studies(studies: Mapping[str, StudyRuns], column: str, resamples: int) -> dict[str, Rank]:
    """Return the rank of each study over resampled test classes; each query's score is averaged over a study's runs.

    A study is left out if one of its runs kept no embeddings. Empty if fewer than two are left.

    Args:
        studies: studies on the same test images, by name.
        column: the metric; under the traditional protocol, of the epoch that is best on test.
        resamples: number of draws of the classes.

    Raises:
        UserError: a ledger cannot be written, or two studies have other test images.
        CorruptFileError: a file of embeddings is damaged, or is not the one that its record was made with.
    """
    files = {name: {run: runs.paths(run).with_suffix("") / kept.NAME for run in sorted(runs.records)}
             for name, runs in studies.items()}  # fmt: skip
    files = {name: of for name, of in files.items() if of and all(path.is_file() for path in of.values())}
    found: dict[str, np.ndarray] = {}
    labels = np.array([])
    for name, of in files.items() if len(files) > 1 else ():
        runs, each = studies[name], []
        for run, path in of.items():
            log_access(
                runs.directory, {"run": run, "story": "tables", "looks": "ranks over classes", "commit": commit()}
            )
            _check(path, runs.records[run])
            own, scores = scores_of(kept.read(path), [column], runs.stored.science, runs.stored.facts.recall_at)
            if len(labels) and not np.array_equal(own, labels):
                raise UserError(f"{path} has other test images than {next(iter(files))}, so classes cannot be drawn.")
            labels = own
            each.append(scores[column])
        found[name] = np.mean(each, axis=0)
    return ranks_over_classes(found, labels, resamples=resamples) if found else {}


def _check(path: Path, record: records.Record) -> None:
    """Compare a file of embeddings with the SHA-256 in the run's record.

    Raises:
        CorruptFileError: they differ.
    """
    expected = record.provenance.get("embeddings_sha256")
    if expected and hashlib.sha256(records.read_file(path)).hexdigest() != expected:
        raise records.CorruptFileError(f"{path} is not the file that the record of its run was made with.")


def scores_of(
    run: kept.Kept, columns: Sequence[str], science: JsonObject, recall_at: Sequence[int] = ()
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The labels (Q,) of the queries, and each query's score (Q,) by column, averaged over models if separated.

    Args:
        run: the kept embeddings (F, N, D).
        columns: columns such as `concatenated.map_at_r`.
        science: the study's scientific configuration, which has the distance of the search.
        recall_at: each K of Recall@K.
    """
    loss = science["loss"]
    metric, options = str(loss.get("retrieval", "cosine")), dict(loss.get("retrieval_options", {}))
    embeddings, labels = torch.from_numpy(run.embeddings), torch.from_numpy(run.labels)
    is_query = torch.ones(len(labels), dtype=torch.bool) if run.is_query is None else torch.from_numpy(run.is_query)
    gallery = ~is_query if run.is_query is not None else None

    def scores(vectors: torch.Tensor, parts: int = 1) -> dict[str, torch.Tensor]:
        others = () if gallery is None else (vectors[gallery], labels[gallery])
        return query_scores(
            vectors[is_query], labels[is_query], *others, metric=metric, recall_at=recall_at, parts=parts, **options
        )

    joined = scores(*side_by_side(embeddings, metric))
    found = {"concatenated": joined, KEPT_EPOCH: joined}  # one model under the traditional protocol
    if any(column.startswith("separated.") for column in columns):
        models = [scores(vectors) for vectors in embeddings]
        found["separated"] = {name: torch.stack([one[name] for one in models]).mean(dim=0) for name in joined}
    split = {column: column.partition(".") for column in columns}
    return labels[is_query].numpy(), {column: found[mode][name].numpy() for column, (mode, _, name) in split.items()}
