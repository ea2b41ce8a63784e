"""make test-library: the tests of the losses with other versions of pytorch-metric-learning than the installed one.

Each version is installed into a folder of its own, which comes before the environment on the module path; everything
else is the environment's. A version that pip cannot install, for example because it needs a newer Python, is reported
and is no failure. Run it with Python 3.12 or newer for version 3.

    python -m tests.library_versions [version] [version]
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("==2.8.1", ">=3,<4")  # the oldest that pyproject.toml allows, and the newest of version 3
USES = re.compile(r"pytorch[-_]metric[-_]learning|losses\.(library|golden_|distances|full_precision)")


def files() -> list[str]:
    """The test files of the losses that use the library."""
    folder = ROOT / "tests" / "losses"
    return [str(path) for path in sorted(folder.glob("test_*.py")) if USES.search(path.read_text(encoding="utf-8"))]


def run_with(versions: Iterable[str]) -> bool:
    """Test the losses with each version that can be installed; return whether all tests passed.

    Args:
        versions: requirements, such as `==2.8.1`.
    """
    passed = True
    for requirement in versions:
        with tempfile.TemporaryDirectory() as folder:
            install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
            name = f"pytorch-metric-learning{requirement}"
            done = subprocess.run([sys.executable, *install, name], capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                print(f"{name} cannot be installed here, so it was not tested: {reason}", flush=True)
                continue
            print(f"Testing the losses with {name}:", flush=True)
            tests = [
                "-m",
                "pytest",
                "-q",
                "-n",
                "logical",
                "--dist",
                "loadfile",
                "-m",
                "not slow and not gpu",
                *files(),
            ]
            path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
            environment = os.environ | {"PYTHONPATH": path}
            passed &= not subprocess.run([sys.executable, *tests], cwd=ROOT, env=environment, check=False).returncode
    return passed


if __name__ == "__main__":
    sys.exit(not run_with(sys.argv[1:] or VERSIONS))
