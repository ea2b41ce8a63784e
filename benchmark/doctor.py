"""make doctor: check this machine, and print a fix for each problem.

Each line appears as soon as it is known; PyTorch, which takes seconds to import, comes after what needs no import.
`BROKEN` is what stops a training or makes a GPU useless, `note` what is only missing for a part of the project. The
options of a study (DATASET=cub TRUNK=resnet50 EXECUTOR=slurm) make what it needs a condition. Nothing is written.
"""

if __name__ == "__main__":
    from benchmark.__main__ import main

    raise SystemExit(main("doctor"))

import contextlib
import importlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from benchmark.core import conf_files
from benchmark.core.cache_dir import VARIABLE, user_cache_dir
from benchmark.core.console import write
from benchmark.core.devices import gpu_names
from benchmark.core.errors import IncompleteError, UserError, message_for_user
from benchmark.core.invocation import arguments, command, install, key_of
from benchmark.core.threads import usable_cores
from benchmark.core.wording import counted, human_size
from benchmark.experiment import outline
from benchmark.study.study import Study

OK, NOTE, BROKEN = "ok", "note", "BROKEN"
FIRST_PYTHON, AFTER_PYTHON = (3, 11), (3, 14)
NEEDED = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "pillow", "ax-platform",
          "hydra-core", "pytorch-metric-learning", "msgspec", "safetensors")  # fmt: skip
EXTRAS = {"timm": "the trunks vit_small, deit_small, dino*, efficientnet_lite0, ...", "ray": "the executor ray"}
FREE_CACHE, FREE_RESULTS = 5e9, 1e9  # bytes below which a disk is called nearly full
FULL = 1e7
SECONDS = 20.0  # for another program to answer


class Finding(NamedTuple):
    """A line of the report.

    Attributes:
        state: `ok`, `note` or `BROKEN`.
        text: what was found.
        fix: what to do; empty if nothing.
    """

    state: str
    text: str
    fix: str = ""


def doctor(study: Study, overrides: list[str]) -> None:
    """Check this machine, and print a line for each finding.

    Args:
        study: supplies the results folder, the device, the data set, the trunk and the executor.
        overrides: the overrides on the command line; what they name is needed.

    Raises:
        IncompleteError: something that is needed is broken.
    """
    named = {key_of(override).partition(".")[0] for override in overrides}
    broken = 0
    checks: list[Callable[[], Iterator[Finding]]] = [
        python, cores, lambda: folders(Path(study.config.results_dir)), packages,
        lambda: libraries(study.config.device), lambda: data_sets(study, "dataset" in named),
        lambda: weights(study, "trunk" in named), lambda: clusters(study),
    ]  # fmt: skip
    for check in checks:
        for finding in check():
            fix = f" -> {finding.fix}" if finding.fix else ""
            write(f"{finding.state:<7}{finding.text}{fix}")
            broken += finding.state == BROKEN
    if broken:
        raise IncompleteError(f"{counted(broken, 'thing is', 'things are')} broken. The lines above say how to fix it.")
    write(f"Nothing that is needed is broken. Next: {command('bo', overrides=overrides)}")


def python() -> Iterator[Finding]:
    """Yield whether this Python is one that the libraries support."""
    version = sys.version_info[:2]
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    if FIRST_PYTHON <= version < AFTER_PYTHON:
        yield Finding(OK, text)
    else:
        yield Finding(BROKEN, text, "install Python 3.11, 3.12 or 3.13: make clean setup PYTHON=/path/to/python3.12")


def cores() -> Iterator[Finding]:
    """Yield the cores, and the threads that each worker would start."""
    found, threads = usable_cores(), os.environ.get("OMP_NUM_THREADS", "")
    text = f"{counted(found, 'core')} to use, OMP_NUM_THREADS={threads or 'not set'}"
    if threads.isdigit() and int(threads) > found:
        yield Finding(NOTE, text, f"more threads than cores are slow: OMP_NUM_THREADS={found} or less")
    else:
        yield Finding(OK, text)


def folders(results: Path) -> Iterator[Finding]:
    """Yield whether cache, results and temporary files have folders that can be written, with room.

    Args:
        results: the results folder.
    """
    try:
        cache = user_cache_dir()
    except UserError as error:
        yield Finding(BROKEN, str(error).partition(". ")[0], f"name a folder: export {VARIABLE}=/some/folder")
    else:
        yield _folder("cache", cache, FREE_CACHE, f"name another folder: export {VARIABLE}=/some/folder")
    yield _folder(
        "results", results, FREE_RESULTS, f"name another folder: {arguments({'results_dir': '/some/folder'})}"
    )
    try:
        yield Finding(OK, f"temporary files: {tempfile.gettempdir()}")
    except FileNotFoundError:
        yield Finding(BROKEN, "there is no folder for temporary files", "name one: export TMPDIR=/some/folder")


def _folder(name: str, folder: Path, enough: float, fix: str) -> Finding:
    """Whether a folder, or the nearest one above it that exists, can be written, and how much room there is."""
    there = folder.absolute()
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            return Finding(BROKEN, f"{name}: {folder} cannot be written ({there})", fix)
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(BROKEN, f"{name}: {folder} cannot be used ({error.strerror})", fix)
    text = f"{name}: {folder}, {human_size(free)} free"
    if free < FULL:
        return Finding(BROKEN, text, f"free some, or {fix}")
    return Finding(OK, text) if free >= enough else Finding(NOTE, text, f"little room is left; free some, or {fix}")


def packages() -> Iterator[Finding]:
    """Yield which libraries are installed, and whether those that must fit each other do."""
    again = "install this project's libraries: make setup"
    missing = [name for name in NEEDED if _version(name) is None]
    if missing:
        yield Finding(BROKEN, f"not installed: {', '.join(missing)}", again)
    torch, vision = _version("torch"), _version("torchvision")
    if torch and vision:
        needs = [Requirement(need) for need in metadata.requires("torchvision") or ()]
        asked = next((need.specifier for need in needs if need.name == "torch"), SpecifierSet())
        fits = asked.contains(torch.partition("+")[0], prereleases=True)
        text = f"torch {torch}, torchvision {vision}"
        yield Finding(OK, text) if fits else Finding(BROKEN, f"{text}, which needs torch {asked}", again)
    faiss = {name: found for name in ("faiss-cpu", "faiss-gpu") if (found := _version(name))}
    text = ", ".join(f"{name} {found}" for name, found in faiss.items())
    if len(faiss) == 1:
        yield Finding(OK, text)
    elif faiss:
        yield Finding(BROKEN, f"{text}: each overwrites the files of the other", "pip uninstall both, then make setup")
    else:
        yield Finding(BROKEN, "not installed: faiss", again)
    for name, use in EXTRAS.items():
        found = _version(name)
        yield (
            Finding(OK, f"{name} {found}")
            if found
            else Finding(NOTE, f"{name} is not installed, which {use} need{'s' * (name == 'ray')}", install(name))
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def libraries(device: str) -> Iterator[Finding]:
    """Yield whether the compiled libraries can be loaded, and whether there is a GPU and PyTorch can use it.

    Args:
        device: the configured device.
    """
    loaded: dict[str, Any] = {}
    for name in ("torch", "torchvision", "faiss"):
        if importlib.util.find_spec(name) is None:
            continue  # `packages` says so
        try:
            loaded[name] = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            yield Finding(BROKEN, f"{name} cannot be loaded: {str(error).splitlines()[0]}", "make clean setup")
    if "torch" in loaded:
        yield from gpu(loaded["torch"], driver(), device)


def driver() -> tuple[str, str] | None:
    """The version of the NVIDIA driver and that of the newest CUDA that it supports; None if there is no driver."""
    text = _answer("nvidia-smi")
    if text is None:
        return None
    version, cuda = (re.search(rf"{what} Version:\s*([\d.]+)", text) for what in ("Driver", "CUDA"))
    return version[1] if version else "unknown", cuda[1] if cuda else ""


def gpu(torch: Any, found: tuple[str, str] | None, device: str) -> Iterator[Finding]:
    """Yield whether PyTorch can use a GPU, or why not.

    Args:
        torch: the module.
        found: what `driver` returned.
        device: the configured device.
    """
    wanted = device.startswith("cuda")
    built = torch.version.cuda
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            text = f"GPU {number}: {torch.cuda.get_device_name(number)}, {human_size(free)} of {human_size(total)} free"
            ours = "sm_{}{}".format(*torch.cuda.get_device_capability(number))
            builds = torch.cuda.get_arch_list()
            major = any(build.startswith(ours[:-1]) for build in builds)
            if builds and not major:
                yield Finding(BROKEN, f"{text}, but this PyTorch has no code for {ours}", "install a PyTorch that has")
            else:
                yield Finding(OK, f"{text}, CUDA {built}, driver {found[0] if found else 'unknown'}")
        if wanted and device not in gpu_names(torch.cuda.device_count()):
            yield Finding(BROKEN, f"GPU: there is none with the number of device={device}", "give device=cuda")
        return
    if torch.backends.mps.is_available():
        text = "GPU: Apple's, which has no float64 and is not used; all runs on the CPU"
        yield Finding(BROKEN if wanted else OK, text, "give device=cpu" if wanted else "")
        return
    if found is None:
        yield Finding(BROKEN if wanted else OK, "GPU: none, as there is no NVIDIA driver; all runs on the CPU",
                      "install NVIDIA's driver, or give device=cpu" if wanted else "")  # fmt: skip
        return
    text = f"GPU: driver {found[0]} (CUDA {found[1] or 'unknown'}) is there, but PyTorch sees no GPU"
    if built is None:
        yield Finding(BROKEN if wanted else NOTE, f"{text}: this build of PyTorch is for CPUs only",
                      "make clean setup, without TORCH=cpu")  # fmt: skip
    elif "CUDA_VISIBLE_DEVICES" in os.environ and os.environ["CUDA_VISIBLE_DEVICES"].strip() in ("", "-1"):
        yield Finding(
            BROKEN if wanted else NOTE, f"{text}: CUDA_VISIBLE_DEVICES is empty", "unset CUDA_VISIBLE_DEVICES"
        )
    elif found[1] and int(built.partition(".")[0]) > int(found[1].partition(".")[0]):
        yield Finding(BROKEN, f"{text}: PyTorch is built for CUDA {built}, which this driver is too old for",
                      f"update the driver, or install a PyTorch for CUDA {found[1]} or older")  # fmt: skip
    else:
        yield Finding(BROKEN, f"{text} (built for CUDA {built})", "run nvidia-smi as this user; restart the machine or "
                      "container after an update of the driver, and start a container with --gpus=all")  # fmt: skip


def data_sets(study: Study, needed: bool) -> Iterator[Finding]:
    """Yield which data sets are on this machine.

    Args:
        study: the study whose data set is checked.
        needed: whether the command line names it.
    """
    config, own = study.config.dataset, study.config.dataset.name
    names = [name for name in conf_files.names("dataset") if name not in ("csv", "folder")]
    missing = [name for name in names if outline.missing_data({"dataset": name})]
    yield Finding(OK, f"data sets here: {', '.join(name for name in names if name not in missing)}")
    root = config.module.get("root")
    if needed and root and not Path(str(root)).expanduser().exists():
        yield Finding(BROKEN, f"data set {own} is not here ({root})", command("data", {"dataset": own}))
    elif others := [name for name in missing if name != own or not needed]:
        yield Finding(NOTE, f"not here: {', '.join(others)}", command("data", {"dataset": others[0]}))


def weights(study: Study, needed: bool) -> Iterator[Finding]:
    """Yield which published weights are on this machine.

    Args:
        study: the study whose trunk is checked.
        needed: whether the command line names it.
    """
    trunks = conf_files.names("trunk")
    found = {name: outline.missing_weights({"trunk": name, "dataset": "cub"}) for name in trunks}
    missing = {name: files[0] for name, files in found.items() if files}
    own = study.config.trunk.name
    if own in missing and needed and study.config.trunk.module.get("weights") is not None:
        fix = "the first training downloads them; without internet, name a file: trunk.module.weights=FILE"
        yield Finding(NOTE, f"{missing[own]} of {own} are not here", fix)
    elif missing:
        yield Finding(NOTE, f"weights not here yet, of {', '.join(missing)}", "the first training downloads them")
    else:
        yield Finding(OK, "weights of all trunks with an address are here")


def clusters(study: Study) -> Iterator[Finding]:
    """Yield whether Ray and SLURM answer, where they are used."""
    executor = study.config.executor
    if executor.name == "ray" and (address := executor.options.get("address")):
        from benchmark.jobs.executors import ray

        try:
            yield Finding(OK, f"Ray cluster at {address}: room for {counted(ray.room(str(address), 1, 0), 'worker')}")
        except Exception as error:
            if (said := message_for_user(error)) is None:
                raise
            yield Finding(BROKEN, f"Ray: {said}", "ray status on this machine shows whether a cluster runs")
    answer = _answer("sinfo", "--noheader", "--format=%P %a %D")
    if answer is not None:
        partitions = "; ".join(answer.split("\n")[:3])
        yield Finding(OK, f"SLURM answers: {partitions}")
    elif shutil.which("sinfo") or executor.name == "slurm":
        there = "does not answer (sinfo)" if shutil.which("sinfo") else "is not here: there is no sinfo"
        yield Finding(BROKEN if executor.name == "slurm" else NOTE, f"SLURM {there}",
                      f"run this on a login node, or take {arguments({'executor': 'local'})}")  # fmt: skip


def _answer(*arguments: str) -> str | None:
    """What another program prints; None if it is missing, fails or takes too long."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS, check=False)
        return done.stdout.strip() if done.returncode == 0 else None
    return None
