"""The house as a test: a part imports only from lower rows, and siblings never import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "benchmark"
ROWS = (
    ("data", "splits", "bo", "final_eval", "traditional", "tables", "report", "status", "logs", "bench", "bench_gpu"),
    ("fold_tables", "traditional_tables", "search_costs"),
    ("worker", "ledger", "dispatch", "checks", "unseen", "loss_costs", "image_costs", "dispatch_costs", "table_formats",
     "lost", "survey"),
    ("study",),
    ("recipes", "identity", "sources", "places"),
    ("train", "schema"),
    ("losses", "datasets", "trunks", "heads", "samplers", "searchers", "executors"),
    ("parts",),
    ("weights", "images", "neighbours", "pulse"),
    ("protocol", "records", "curves", "provenance", "display", "advice", "build", "stopwatch", "fetch", "decay",
     "cache_dir", "unit_log", "threads"),
)  # fmt: skip
ROW_OF = {part: number for number, row in enumerate(ROWS) for part in row}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("benchmark.")}


def test_there_are_modules_to_check() -> None:
    assert len(MODULES) > 20


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_has_a_row_and_imports_only_from_lower_rows(path: Path) -> None:
    part = part_of(path)
    assert part in ROW_OF, f"{part} has no row: give it one here and in the README"
    for other in ours(path) - {part}:
        assert ROW_OF[other] > ROW_OF[part], f"{part} (row {ROW_OF[part]}) imports {other} (row {ROW_OF[other]})"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_study_uses_hydra_and_omegaconf(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}
    assert not used or path.name == "study.py"


def attribute_uses(path: Path, name: str) -> int:
    return sum(isinstance(n, ast.Attribute) and n.attr == name for n in ast.walk(ast.parse(path.read_text("utf-8"))))


def test_only_final_eval_and_traditional_can_open_the_test_classes() -> None:
    openers = {part_of(path) for path in MODULES if attribute_uses(path, "test")}
    assert openers - {"datasets"} == {"unseen"}
    assert {part_of(path) for path in MODULES if "unseen" in ours(path)} == {"final_eval", "traditional"}


def test_workers_of_the_search_serve_training_only() -> None:
    worker = ast.parse((PACKAGE / "worker.py").read_text(encoding="utf-8"))
    served = [
        n.args[0].id for n in ast.walk(worker) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "serve"
    ]
    assert served == ["train_unit"]
