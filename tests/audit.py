"""make audit: what this project installs: known vulnerabilities, licences, and a bill of materials (SBOM).

- **Vulnerabilities.** Every package of the lock files is looked up in the Open Source Vulnerabilities database
  (osv.dev): its export for PyPI, a zip of JSON files, is downloaded once a day, or read from the path in the
  environment variable ADVISORIES, which needs no network. Versions are compared as its schema defines
  (`affected.versions`, and events of `ECOSYSTEM` ranges).
- **Licences** are those that the installed packages declare.
- **SBOM**: CycloneDX 1.6 as JSON, of the lock file, with its hashes, in `build/sbom.cdx.json`.

Exit status: 0, 1 if a vulnerability is known, 2 if the database cannot be read, so that nothing was checked.
"""

import json
import os
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.console import write, write_table
from benchmark.core.download import download
from benchmark.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-cpu.lock", "requirements-docs.lock", "requirements-uv.lock")
ADDRESS = "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"
DAY = 86400.0
SBOM = Path("build") / "sbom.cdx.json"


@dataclass(frozen=True)
class Pinned:
    """A package of a lock file: its name in canonical form, its version, and the SHA-256 of its files."""

    name: str
    version: str
    hashes: tuple[str, ...]


def pinned(text: str) -> list[Pinned]:
    """Return the packages of a lock file."""
    found = []
    for entry in text.replace("\\\n", " ").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", entry):
            name, version = match.groups()
            found.append(Pinned(canonicalize_name(name), version, tuple(re.findall(r"--hash=sha256:(\w{64})", entry))))
    return found


def advisories(database: Path) -> Iterator[dict[str, Any]]:
    """Yield the advisories in an export of osv.dev that were not withdrawn.

    Raises:
        UserError: the file is not such an export.
    """
    try:
        with zipfile.ZipFile(database) as whole:
            for name in whole.namelist():
                advisory = json.loads(whole.read(name))
                if not advisory.get("withdrawn"):
                    yield advisory
    except (OSError, zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(
            f"{database} is not an export of osv.dev ({error}). Delete it, or download {ADDRESS}."
        ) from error


def affects(affected: dict[str, Any], package: Pinned) -> bool:
    """Return whether an entry of `affected` in an advisory covers a package."""
    named = affected.get("package", {})
    if named.get("ecosystem") != "PyPI" or canonicalize_name(named.get("name", "")) != package.name:
        return False
    ranges = [r for r in affected.get("ranges", []) if r.get("type") == "ECOSYSTEM"]
    return package.version in affected.get("versions", []) or any(_within(r["events"], package.version) for r in ranges)


def _within(events: list[dict[str, str]], version: str) -> bool:
    """Return whether a version lies in a range, which its events open (`introduced`) and close, in ascending order."""
    inside = False
    for event in events:
        for kind, bound in event.items():
            try:
                reached = bound == "0" or Version(version) >= Version(bound)
                passed = Version(version) > Version(bound) if kind == "last_affected" else reached
            except InvalidVersion:
                continue  # `affected.versions` lists the versions that PyPI's rules cannot order
            if kind == "introduced" and reached:
                inside = True
            elif kind in ("fixed", "last_affected", "limit") and passed:
                inside = False
    return inside


def vulnerabilities(packages: list[Pinned], database: Path) -> list[tuple[str, str, str, str]]:
    """Return the known vulnerabilities: package, version, identifiers, summary."""
    by_name: dict[str, list[Pinned]] = {}
    for package in packages:
        by_name.setdefault(package.name, []).append(package)
    found = set()
    for advisory in advisories(database):
        for affected in advisory.get("affected", []):
            for package in by_name.get(canonicalize_name(affected.get("package", {}).get("name", "")), []):
                if affects(affected, package):
                    names = " ".join([advisory["id"], *advisory.get("aliases", [])])
                    found.add((package.name, package.version, names, advisory.get("summary", "")))
    return sorted(found)


def database() -> Path:
    """Return the path of the vulnerability database, which is downloaded if it is missing or a day old.

    Raises:
        UserError: it cannot be downloaded.
    """
    if named := os.environ.get("ADVISORIES"):
        return Path(named).expanduser()
    path = user_cache_dir() / "advisories" / "PyPI.zip"
    if path.exists() and time.time() - path.stat().st_mtime > DAY:
        path.unlink()
    return download(ADDRESS, path)


def licences(packages: list[Pinned]) -> list[tuple[str, str, str]]:
    """Return name, version and declared licence of each installed package."""
    rows = []
    for package in packages:
        try:
            about = metadata.metadata(package.name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        kinds = [
            line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if line.startswith("License ::")
        ]
        text = str(about.get("License-Expression") or "") or ", ".join(kinds) or str(about.get("License") or "")
        rows.append((package.name, package.version, text.strip().partition("\n")[0][:60] or "(not declared)"))
    return rows


def sbom(packages: list[Pinned]) -> str:
    """Return the bill of materials of packages as CycloneDX 1.6 in JSON."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL

    bom = Bom()
    project = Component(name="metric-learning-benchmark", type=ComponentType.APPLICATION, bom_ref="project")
    bom.metadata.component = project
    for package in packages:
        address = PackageURL("pypi", name=package.name, version=package.version)
        component = Component(
            name=package.name, version=package.version, type=ComponentType.LIBRARY, purl=address,
            bom_ref=str(address), hashes=[HashType(alg=HashAlgorithm.SHA_256, content=h) for h in package.hashes],
        )  # fmt: skip
        bom.components.add(component)
        bom.register_dependency(project, [component])
    return str(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1))


def audit() -> int:
    """Print vulnerabilities and licences, write the SBOM, and return the exit status."""
    by_lock = {name: pinned((ROOT / name).read_text(encoding="utf-8")) for name in LOCKS}
    packages = sorted({package for found in by_lock.values() for package in found}, key=lambda p: (p.name, p.version))
    records.write_whole(ROOT / SBOM, sbom(by_lock["requirements.lock"]).encode())
    write_table(("Package", "Version", "Licence"), licences(by_lock["requirements.lock"]))
    write(f"\n{SBOM}: {len(by_lock['requirements.lock'])} components.")
    try:
        found = vulnerabilities(packages, database())
    except (UserError, OSError) as error:
        write(
            f"Vulnerabilities were NOT checked: {error}\nWith a copy of {ADDRESS} on this machine: "
            "ADVISORIES=FILE make audit", error=True,
        )  # fmt: skip
        return 2
    for name, version, names, summary in found:
        write(f"{name} {version}: {names}: {summary}", error=True)
    write(f"{len(packages)} packages, {len(found)} known vulnerabilities.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(audit())
