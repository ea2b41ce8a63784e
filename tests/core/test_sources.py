"""conf/sources.yaml: complete, the only file with addresses, and read strictly."""

import datetime
import importlib
import re
from pathlib import Path

import pytest

from benchmark.core import sources
from benchmark.core.errors import UserError
from benchmark.core.paths import CHECKOUT_DIR, PACKAGE_DIR, conf_dir
from benchmark.core.sources import Source

STATED = sources.statements()
DATASETS, WEIGHTS = STATED.datasets, {(t, n): w for t, ws in STATED.weights.items() for n, w in ws.items()}
ALLOWED = (  # papers, the signature of a Git LFS pointer, and names of XML's vocabularies
    "https://arxiv.org/", "https://doi.org/", "https://git-lfs.github.com/", "http://www.w3.org/",
)  # fmt: skip


def test_no_other_file_holds_an_address() -> None:
    found = []
    for folder in (PACKAGE_DIR, conf_dir()):
        for path in sorted(
            p for p in folder.rglob("*") if p.suffix in (".py", ".yaml", ".yml", ".json", ".txt", ".md")
        ):
            for address in re.findall(r"https?://[\w.-]+\.[a-z]{2,}/\S*", path.read_text(encoding="utf-8")):
                if not address.startswith(ALLOWED) and path != conf_dir() / sources.NAME:
                    found.append(f"{path.relative_to(CHECKOUT_DIR)}: {address}")
    assert not found


def test_every_published_data_set_and_every_pretrained_trunk_is_stated() -> None:
    modules = {path.stem for path in (PACKAGE_DIR / "datasets").glob("*.py")}
    assert set(DATASETS) <= modules and {"cub", "cars196", "sop", "inshop", "inaturalist2019", "grocery"} <= set(
        DATASETS
    )
    loading = {p.stem for p in (PACKAGE_DIR / "trunks").glob("*.py") if "files.published(" in p.read_text()}
    assert set(STATED.weights) == loading and len(loading) >= 4


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_states_what_it_needs_to(name: str) -> None:
    entry = DATASETS[name]
    assert entry.licence and entry.basis and datetime.date(2026, 1, 1) <= entry.checked
    assert entry.sources or (entry.gone and entry.by_hand)
    for copy in sources.copies(entry.sources):
        assert len(sources.copies(entry.sources)) == 1 or copy[0].copy, "copies are told apart by name"
    for source in entry.sources:
        assert source.room and (source.bytes or 0) <= source.room
        assert not source.file.endswith(("gz", "zip")) or source.unpack
        assert not source.unpack or source.unpack.bytes < max(2 * source.room, 2e9)
        assert source.addresses or source.is_verifiable, "a file that is only found must be recognisable"
        assert all(address.startswith(("https://", "http://")) for address in source.addresses)


@pytest.mark.parametrize("name", DATASETS)
def test_the_listing_knows_the_archives_that_are_downloaded(name: str) -> None:
    known = importlib.import_module(f"benchmark.datasets.{name}").NAMES.fetched
    assert set(known) == {source.file for source in DATASETS[name].sources if source.unpack}


def test_cars196_can_be_had_in_several_ways() -> None:
    """16,185 images, about 2 GB: 8,144 of the official training images and 8,041 test images."""
    copies = sources.copies(DATASETS["cars196"].sources)
    assert [bool(copy[0].addresses) for copy in copies] == [True, True, True, False]
    for copy in copies:
        members = sum(source.unpack.members for source in copy if source.unpack)
        size = sum(source.unpack.bytes for source in copy if source.unpack)
        assert 16_185 < members < 25_000 and 2e9 < size < 5e9


@pytest.mark.parametrize("key", WEIGHTS, ids="-".join)
def test_a_weight_file_states_what_it_needs_to(key: tuple[str, str]) -> None:
    entry = WEIGHTS[key]
    assert entry.licence and entry.whose and entry.basis and datetime.date(2026, 1, 1) <= entry.checked
    assert bool(entry.url) != bool(entry.package)
    assert all(address.rpartition("/")[2] == entry.file for address in entry.url)
    assert re.fullmatch("[0-9a-f]{0,64}", entry.sha256) and len(entry.sha256) in (0, 8, 9, 64)
    assert len(entry.url) == 1 or len(entry.sha256) == 64 or entry.package
    if digits := re.search(r"-([0-9a-f]{8,9})\.pth$", entry.file):
        assert entry.sha256.startswith(digits[1]), "torch.hub's convention"
    else:
        assert not entry.sha256


GOOD = {"file": "a.zip", "url": "https://host.example/a.zip", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "../a.zip"}, "without a folder"), ({"file": "/a.zip"}, "without a folder"), ({"file": ""}, "file"),
        ({"file": "x/a.zip"}, "without a folder"), ({"file": ".lock"}, "without a folder"), ({"file": 3}, "file"),
        ({"file": "a\0b"}, "without a folder"), ({"file": "."}, "without a folder"), ({"file": None}, "file"),
        ({"sha256": "12"}, "64 hexadecimal digits"), ({"sha256": "g" * 64}, "64 hexadecimal digits"),
        ({"md5": "0" * 31}, "32 hexadecimal digits"), ({"bytes": -1}, "bytes"), ({"bytes": "9"}, "bytes"),
        ({"bytes": 0}, "bytes"), ({"room": 1.5}, "room"), ({"unpack": 3}, "unpack"), ({"url": [3]}, "url"),
        ({"unpack": {"members": 3}}, "bytes"), ({"unpack": {"members": 3, "bytes": 3, "depth": 1}}, "depth"),
        ({"url": {"a": "b"}}, "url"),
        ({"URL": "x"}, "URL is unknown"), ({"sha256": None, "url": ["http://a.b", "http://c.d"]}, "several addresses"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_source_with_an_invalid_field_is_refused_by_name(change: dict, said: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)dataset\.sources\[0\].*{re.escape(said)}"):
        sources.parse([GOOD | change], "dataset.sources")


def test_two_files_of_one_name_are_refused_because_one_would_continue_the_other() -> None:
    with pytest.raises(UserError, match=r"dataset\.sources names A\.ZIP twice.*url: \[FIRST, SECOND\]"):
        sources.parse([GOOD | {"copy": "x"}, GOOD | {"file": "A.ZIP", "copy": "y"}], "dataset.sources")


def test_several_addresses_of_one_file_are_tried_in_their_order() -> None:
    assert Source("a", url="http://x").addresses == ["http://x"] and Source("a").addresses == []
    assert Source("a", url=["http://y", "http://x"], md5="0" * 32).addresses == ["http://y", "http://x"]


def test_statements_hold_for_the_functions_of_this_project_only() -> None:
    assert sources.data_set("benchmark.datasets.cub.listing") is DATASETS["cub"]
    for other in ("benchmark.datasets.folder.listing", "mine.datasets.cub.listing", "cub", "", "benchmark.cub.listing"):
        assert sources.data_set(other) is None


@pytest.mark.parametrize("content", [b"", b"datasets: {}", b"{", b"datasets: {cub: {}}\nweights: {}", b"\xff", b"- 1"])
def test_a_damaged_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / sources.NAME).write_bytes(content)
    with pytest.raises(UserError, match=r"sources\.yaml"):
        sources.read(tmp_path / sources.NAME)
    with pytest.raises(UserError, match=r"missing\.yaml cannot be read"):
        sources.read(tmp_path / "missing.yaml")
