"""The layers that docs/code.md prints, as a test: a part imports only from lower rows, siblings never each other."""

import ast
import functools
import re
from pathlib import Path

from tests.cases import for_each

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "benchmark"


def layers_in_the_docs() -> list[list[str]]:
    """Parts by row, from the table under the heading of the layout: names in backticks in its first column."""
    section = (ROOT / "docs" / "code.md").read_text(encoding="utf-8").split("\n## Layers\n")[1].split("\n#")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [re.findall(r"`(\w+)`", row) for row in rows]


LAYERS = layers_in_the_docs()
ROW_OF = {part: number for number, row in enumerate(LAYERS) for part in row}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.stem.startswith("__"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("benchmark.")}


def test_the_docs_list_exactly_the_parts_that_there_are() -> None:
    assert set(ROW_OF) == {part_of(path) for path in MODULES}
    assert sum(map(len, LAYERS)) == len(ROW_OF), "a part stands in two rows"


@for_each("path", MODULES)
def test_a_module_imports_only_from_lower_rows(path: Path) -> None:
    part = part_of(path)
    front = {"__main__"} if path.parent == PACKAGE else set()  # a command that is run as a module hands over to it
    for other in ours(path) - {part} - front:
        assert ROW_OF[other] > ROW_OF[part], f"{part} (row {ROW_OF[part]}) imports {other} (row {ROW_OF[other]})"


@for_each("path", MODULES)
def test_only_the_study_uses_hydra_and_omegaconf(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}
    assert not used or part_of(path) == "study"


def test_no_command_of_a_search_can_open_the_test_classes() -> None:
    def opens(path: Path) -> bool:
        return any(isinstance(node, ast.Attribute) and node.attr == "test" for node in nodes(path))

    openers = {path for path in MODULES if opens(path) and part_of(path) != "datasets"}
    assert openers == {PACKAGE / "study" / "testset.py"}
    doors = {"benchmark.study.testset", "benchmark.study.scoring", "benchmark.study.passes"}
    users = {path for path in MODULES if doors & imports(path)}
    commands = {
        PACKAGE / f"{name}.py" for name in ("final_eval", "traditional", "robustness", "figures", "score", "overlap")
    }
    assert users == commands | {PACKAGE / "study" / "scoring.py", PACKAGE / "study" / "passes.py"}


def test_whatever_reads_test_images_or_kept_test_embeddings_logs_it() -> None:
    @functools.cache
    def calls(path: Path) -> set[str]:
        return {ast.unparse(node.func) for node in nodes(path) if isinstance(node, ast.Call)}

    def holds(path: Path, text: str) -> bool:
        return text in [node.value for node in nodes(path) if isinstance(node, ast.Constant)]

    writers = {PACKAGE / "study" / "scoring.py", PACKAGE / "traditional.py"}
    reader = PACKAGE / "report" / "figures" / "kept.py"
    assert {path for path in MODULES if holds(path, "embeddings.npz")} <= {reader} | writers
    users = {path for path in MODULES if "kept.read" in calls(path)}
    assert users == {PACKAGE / "figures.py", PACKAGE / "report" / "class_intervals.py"}
    readers = {path for path in MODULES if {"read_npz", "embed_files"} & calls(path)} - {
        PACKAGE / "models" / "gallery.py"
    }
    assert readers == {PACKAGE / f"{name}.py" for name in ("api", "embed", "search", "score")}
    for path in users | readers | {path for path in MODULES if "dataset.test" in calls(path)}:
        assert {"log_access", "open_test_set", "_log", "model.log_if_tested_on"} & calls(path), path
    # Only a traditional run, whose opening of the test classes was logged, may read them once more without a line.
    assert {path for path in MODULES if "opened_test_set" in calls(path)} <= {PACKAGE / "traditional.py"}


def test_workers_of_the_search_serve_training_only() -> None:
    worker = ast.parse((PACKAGE / "jobs" / "train_unit.py").read_text(encoding="utf-8"))
    served = [
        n.args[0].id for n in ast.walk(worker) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "serve"
    ]
    assert served == ["train_unit"]
