"""The layers that docs/code.md prints, as a test: a part imports only from lower rows, siblings never each other."""

import ast
import functools
import re
from dataclasses import dataclass, field
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


@dataclass
class Code:
    """What a module contains.

    Attributes:
        imports: names of modules, and of what is imported from them.
        attributes: names of attributes.
        calls: what is called, such as `dataset.test`.
        texts: strings.
    """

    imports: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)


@functools.cache
def code(path: Path) -> Code:
    """What a module contains; its syntax tree is forgotten, since the garbage collector would visit its nodes often."""
    found = Code()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.imports |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found.attributes.add(node.attr)
        elif isinstance(node, ast.Call):
            found.calls.add(ast.unparse(node.func))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.texts.add(node.value)
    return found


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in code(path).imports if name.startswith("benchmark.")}


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
    used = {name.split(".")[0] for name in code(path).imports} & {"hydra", "omegaconf"}
    assert not used or part_of(path) == "study"


def test_no_command_of_a_search_can_open_the_test_classes() -> None:
    openers = {path for path in MODULES if "test" in code(path).attributes and part_of(path) != "datasets"}
    assert openers == {PACKAGE / "study" / "testset.py"}
    doors = {"benchmark.study.testset", "benchmark.study.scoring", "benchmark.study.passes"}
    users = {path for path in MODULES if doors & code(path).imports}
    commands = {
        PACKAGE / f"{name}.py" for name in ("final_eval", "traditional", "robustness", "figures", "score", "overlap")
    }
    assert users == commands | {PACKAGE / "study" / "scoring.py", PACKAGE / "study" / "passes.py"}


def test_whatever_reads_test_images_or_kept_test_embeddings_logs_it() -> None:
    writers = {PACKAGE / "study" / "scoring.py", PACKAGE / "traditional.py"}
    reader = PACKAGE / "report" / "figures" / "kept.py"
    assert {path for path in MODULES if "embeddings.npz" in code(path).texts} <= {reader} | writers
    users = {path for path in MODULES if "kept.read" in code(path).calls}
    assert users == {PACKAGE / "figures.py", PACKAGE / "report" / "class_intervals.py"}
    readers = {path for path in MODULES if {"read_npz", "embed_files"} & code(path).calls} - {
        PACKAGE / "models" / "gallery.py"
    }
    assert readers == {PACKAGE / f"{name}.py" for name in ("api", "embed", "search", "score")}
    for path in users | readers | {path for path in MODULES if "dataset.test" in code(path).calls}:
        assert {"log_access", "open_test_set", "_log", "model.log_if_tested_on"} & code(path).calls, path
    # Only a traditional run, whose opening of the test classes was logged, may read them once more without a line.
    assert {path for path in MODULES if "opened_test_set" in code(path).calls} <= {PACKAGE / "traditional.py"}


def test_workers_of_the_search_serve_training_only() -> None:
    worker = ast.parse((PACKAGE / "jobs" / "train_unit.py").read_text(encoding="utf-8"))
    served = [
        n.args[0].id for n in ast.walk(worker) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "serve"
    ]
    assert served == ["train_unit"]
