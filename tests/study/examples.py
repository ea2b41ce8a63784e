"""Valid examples of every dataclass in `contents`; together they use every field."""

import functools
from pathlib import Path
from typing import Any

from benchmark.core import records
from benchmark.protocol.statistics import standard_error
from benchmark.study import contents

SETTING = {"scale": 26.0, "num_proxies": 3}
FINGERPRINT = "0123456789abcdef"
DEVICE = {"kind": "cuda", "name": "NVIDIA H100", "earlier": ["cpu"]}
DEVICE_FACTS = DEVICE | {
    "cuda": "13.2", "cudnn": 91002, "deterministic_algorithms": False, "cudnn_deterministic": True,
    "cudnn_benchmark": False, "threads": 1,
    "precision": {"convolutions": "ieee", "products": "ieee", "autocast": "bfloat16"},
}  # fmt: skip
SECONDS = {"train": 40.0, "evaluate": 10.0}
REASON = "the training loss is nan in epoch 3"


def scores(map_at_r: float) -> dict[str, float]:
    """The three metrics; P@1 lies 0.3 above MAP@R and RP 0.1, but not above 1."""
    return {
        "map_at_r": map_at_r,
        "precision_at_1": min(1.0, map_at_r + 0.3),
        "r_precision": min(1.0, map_at_r + 0.1),
    }


def fold_result(fold: int, map_at_r: float | None, setting: dict[str, Any] = SETTING) -> dict[str, Any]:
    """The result of a fold whose second trained epoch is the best; without a score, of one that diverged at once."""
    rows = [(0, None, 0.1), (1, 2.5, map_at_r / 2), (2, 1.5, map_at_r), (3, 1.0, map_at_r / 4)] if map_at_r else []
    history = [
        {"epoch": epoch, "loss": loss, "diagnostics": {"entropy": 0.5, "warm": True}} | scores(value)
        for epoch, loss, value in rows
    ]
    best = {"best_epoch": 2} | scores(map_at_r) if map_at_r else dict.fromkeys(("best_epoch", *contents.METRICS))
    ending = {"stopped": "patience", "reason": None} if map_at_r else {"stopped": "diverged", "reason": REASON}
    scope = {"fold": fold, "setting": setting, "last_epoch": 3 if map_at_r else 0, "history": history}
    return best | ending | scope | {"best_epoch_in_warmup": None, "coarse_updates": [3]}


def trial_result(index: int, folds: list[dict[str, Any]]) -> dict[str, Any]:
    """The result of a trial."""
    values = [fold["map_at_r"] for fold in folds]
    done = None not in values
    return {
        "index": index, "setting": folds[0]["setting"], "folds": folds, "status": "completed" if done else "failed",
        "reason": None if done else f"fold 1: {REASON}", "map_at_r": sum(values) / len(values) if done else None,
        "standard_error": standard_error(values) if done else None,
    }  # fmt: skip


def run_result(run: int, trial: int | None, folds: list[dict[str, Any]], map_at_r: float | None) -> dict[str, Any]:
    """The result of a run with a concatenated MAP@R; the separated one lies 0.05 below."""
    result = {"run": run, "trial": trial, "setting": folds[0]["setting"], "folds": folds}
    if map_at_r is None:
        return result | {"status": "failed", "reason": f"fold 1: {REASON}", "separated": None, "concatenated": None}
    separated = scores(map_at_r - 0.05)
    modes = {"separated": separated, "separated_folds": [separated] * len(folds), "concatenated": scores(map_at_r)}
    return result | modes | {"status": "completed", "reason": None}


def levels(h_ap: float, num_folds: int) -> dict[str, Any]:
    """Scores of a run on the levels of a hierarchy, with a concatenated H-AP; the separated one lies 0.05 below."""
    modes = {"separated": h_ap - 0.05, "concatenated": h_ap}
    found: dict[str, Any] = {
        mode: {"h_ap": value, "ndcg": value / 2, "asi": value / 3, "super_map_at_r": 1 - value, "class_map_at_r": value}
        for mode, value in modes.items()
    }
    return found | {"separated_folds": [found["separated"]] * num_folds}


def watched(precision_at_1: float) -> dict[str, float]:
    """Scores on monitored images, Recall@K included."""
    return scores(precision_at_1 - 0.3) | {"recall_at_1": precision_at_1, "recall_at_10": precision_at_1 + 0.1}


def traditional_result(run: int, diverged: bool = False) -> dict[str, Any]:
    """The result of a run under the traditional protocol, with held-out classes unless it diverged."""
    rows = [(0, None, 0.4, 0.1), (1, 2.5, 0.5, 0.3), (2, 1.5, 0.7, 0.2), (3, 1.0, 0.6, 0.25)]
    history = [
        {"epoch": epoch, "loss": loss, "diagnostics": {"entropy": 0.5}, "watched": watched(on_test)}
        | ({} if diverged else scores(held_out))
        for epoch, loss, on_test, held_out in rows
    ]
    selected = {rule: {"epoch": epoch} | history[epoch]["watched"]
                for rule, epoch in {"best_on_test": 2, "last_epoch": 3, "held_out": 1}.items()}  # fmt: skip
    if diverged:
        selected |= {"last_epoch": None, "held_out": None}
    ending = {"status": "diverged", "reason": REASON} if diverged else {"status": "completed", "reason": None}
    return {"run": run, "setting": SETTING, "selected": selected, "history": history} | ending


@functools.cache
def good() -> dict[type, list[tuple[Path, records.Record]]]:
    """Good records of each kind, with their paths."""
    scored, failed = [fold_result(0, 0.4), fold_result(1, 0.5)], [fold_result(0, 0.4), fold_result(1, None)]
    scope = {"index": 7, "setting": SETTING}
    ask = {"name": "ax", "seed": 0, "told": 7, "identity": FINGERPRINT}
    asked = ask | {"lost": [2], "pending": 1, "in_training": [5, 6]}
    of_folds = {"warnings": [["idle"], []], "hardware": {"gpu": None}, "devices": [DEVICE, None]}
    unit = {
        "unit": "trial_007/fold_1",
        "reason": "killed",
        "log": "trial_007/fold_1/log",
        "tail": "epoch 1",
        "error": "E",
    }
    lost = {
        "index": 7,
        "setting": SETTING,
        "status": "lost",
        "map_at_r": None,
        "standard_error": None,
        "reason": "killed",
    }
    origin = {"versions": {"torch": "2.9.1"}, "hardware": {"cpu": "a CPU", "gpu": None}}
    costs = {"seconds_per_iteration": 0.25, "peak_memory_bytes": 1_000_000}
    of_fold = (
        origin
        | costs
        | {
            "seconds": SECONDS,
            "fingerprint": FINGERPRINT,
            "warnings": ["idle"],
            "device": DEVICE_FACTS,
        }
    )
    of_run = (
        origin
        | {"seconds": SECONDS | {"score": 5.0}, "test_contents": "ab12", "device": DEVICE_FACTS}
        | costs
        | of_folds
    )
    found: dict[type, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
        contents.Fold: [
            ("trial_007/fold_0/record.json", scored[0], of_fold),
            ("trial_007/fold_1/record.json", failed[1], of_fold),
        ],
        contents.Trial: [
            (
                "bo/trial_007.json",
                trial_result(7, scored),
                origin | costs | {"seconds": SECONDS, "searcher": asked} | of_folds,
            ),
            ("bo/trial_008.json", trial_result(8, failed), {"seconds": SECONDS, "searcher": ask}),
            (
                "bo/trial_009.json",
                trial_result(9, scored[:1])
                | {"status": "stopped", "reason": "behind", "map_at_r": None, "standard_error": 0.1, "estimate": 0.3},
                {"seconds": SECONDS, "searcher": ask},
            ),
        ],
        contents.Run: [
            ("trial_007/run_03.json", run_result(3, 7, scored, 0.3) | {"levels": levels(0.6, 2)}, of_run),
            ("published/run_03.json", run_result(3, None, failed, None), of_run | {"test_contents": None}),
        ],
        contents.Traditional: [
            (
                "setting/run_03.json",
                traditional_result(3),
                of_fold | {"test_contents": "ab12", "embeddings_sha256": "cd34"},
            ),
            ("setting/run_04.json", traditional_result(4, diverged=True), of_fold | {"test_contents": None}),
        ],
        contents.Ask: [("trial_007/ask.json", scope, asked)],
        contents.Lost: [("trial_007/lost.json", scope | lost, {"units": [unit]})],
    }
    return {
        kind: [(Path(path), records.Record(kind.kind, *parts)) for path, *parts in rows]  # type: ignore[attr-defined]
        for kind, rows in found.items()
    }


CHOICE = {
    "trial": 7, "setting": SETTING, "validation_map_at_r": 0.45, "standard_error": 0.05, "num_trials": 48,
    "num_lost": 2, "rule": "raw", "identity": FINGERPRINT,
}  # fmt: skip
