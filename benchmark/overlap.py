"""make overlap: what a trunk's pretraining and a data set share, and what the halves of the data set share.

    make overlap DATASET=cub TRUNK=resnet50
    make overlap DATASET=cub TRUNK=resnet50 ARGS=images=imagenet/train       # the images of the pretraining, if at hand
    make overlap DATASET=cub TRUNK=dinov2_small ARGS=descriptor=features     # compared by the trunk's features

Names of classes are compared with the lists of ImageNet's classes in timm, see `core.class_overlap`. Images are
compared by the cosine of thumbnails, or of features of the trunk. The threshold is chosen with copies of training
images that are made here; no label of a test image is read. `classes.csv`, `halves.csv` and `images.csv` hold all
matches. The test images are opened only after a line in the test ledger, which lies beside these files or in the folder
of a study that was named.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("overlap"))

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.class_overlap import KINDS, STRONG, matches
from benchmark.core.code import code_of
from benchmark.core.console import counting, write, write_table
from benchmark.core.csv_file import write_csv
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, escaped, install
from benchmark.core.places import usable_path
from benchmark.core.pretraining import class_lists, image_sets, of_network
from benchmark.core.provenance import commit
from benchmark.core.threads import usable_cores
from benchmark.core.wording import counted, named
from benchmark.datasets.image_dataset import ROLES_OF
from benchmark.datasets.listing import Listing
from benchmark.images import Images, Source
from benchmark.images.cropped import CroppedImages
from benchmark.images.decoded_on_read import DecodedOnRead
from benchmark.images.features import Views
from benchmark.models.embedding import listed
from benchmark.study import data, frozen
from benchmark.study.command import first_target
from benchmark.study.config import Config, Node
from benchmark.study.prepare import make_ready
from benchmark.study.study import Study
from benchmark.study.testset import open_test_set

SIDE = 16  # of a thumbnail: 8 x 8 and 32 x 32 tell copies from other photographs of groceries less well
COPIES = 200  # training images of which copies are made
CAUGHT = 0.95  # part of the copies of each kind that reach the threshold, unless
MISTAKEN = 0.01  # more than this part of the training images reach it with an image of another class
EQUAL = 0.999  # cosine from which pixels are compared; equal ones differ by rounding at most
CHUNK = 16_384  # images of a folder that are described together, so that a kill costs no more
MOST_PAIRS = 1_000_000
SHOWN = 20  # rows of a printed table; the files have all


@dataclass(frozen=True, eq=False)
class Described:
    """Images with what they are compared by.

    Attributes:
        images: N images as a trunk sees them.
        vectors: float32 (N, D), of length 1; a blank image has 0 everywhere, and equals nothing.
        paths: the N paths of their files.
        what: the half or folder that they are of.
    """

    images: Images
    vectors: Tensor
    paths: Sequence[str]
    what: str


class Thumbnail(nn.Module):
    """Averages images (B, Ch, H, W) in `SIDE` x `SIDE` cells, (B, F)."""

    mean, std = (0.0,) * 3, (1.0,) * 3

    def forward(self, images: Tensor) -> Tensor:
        """Return the averages, (B, F)."""
        return adaptive_avg_pool2d(images.float(), SIDE).flatten(1)


class Copies:
    """Copies of some images of a source, made by a function; a `Source`.

    Args:
        source: N images.
        rows: int64 (K,), the images that are copied.
        make: copies an image, uint8 (H, W, 3).
        kind: names what `make` does.
    """

    short_side: int | None = None

    def __init__(self, source: Source, rows: np.ndarray, make: Callable[[np.ndarray], np.ndarray], kind: str) -> None:
        self.source, self.rows, self.make = source, rows, make
        self.contents = records.digest([source.contents, rows.tolist(), kind])

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, index: int) -> np.ndarray:
        """Return one copy, uint8 (H, W, 3)."""
        return self.make(self.source.pixels(int(self.rows[index])))


def overlap(study: Study, overrides: list[str]) -> None:
    """Report names of classes that the pretraining has too, then images with copies elsewhere.

    Args:
        study: names the data set, the trunk and the folder of other images.
        overrides: unused; every command receives its overrides.

    Raises:
        UserError: the data set has no image files, an option is not allowed, or an image cannot be read.
    """
    config = study.config
    if config.threshold is not None and not 0 < config.threshold <= EQUAL:
        raise UserError(f"threshold={config.threshold:g}: give a number above 0, at most {EQUAL}, or null.")
    other = listed(root := usable_path("images", config.images)) if config.images else None
    dataset = study.make_dataset()
    if (listing := dataset.listing) is None:
        raise UserError(f"{config.dataset.label} has no image files, so no other set has copies of them.")
    has_training = bool(len(listing.classes("trainval")))
    if config.threshold is None and not has_training:
        raise UserError(f"Without training images, name the threshold: {arguments({'threshold': 0.95})}")
    name = f"{config.dataset.name}-{config.trunk.name}"
    folder = Path(config.output or Path(config.results_dir) / "overlap" / name)

    # 1. names of classes
    compare_names(config, listing, folder / "classes.csv")

    # 2. what images are compared by, and from which cosine on two of them count as copies
    study = prepared(study, folder)
    make_ready(study, dataset, ("trainval", "test"))
    entry = {"story": "overlap", "looks": f"copies of images, by {config.descriptor}", "commit": commit()}
    test = open_test_set(study, entry)
    halves = {"test": described(study, cast(CroppedImages, test.pixels).source, paths_of(listing, "test"), "test")}
    threshold = config.threshold
    if has_training:
        train = dataset.trainval()
        halves["trainval"] = described(study, cast(Source, train.images), paths_of(listing, "trainval"), "trainval")
        threshold = calibrated(study, cast(Source, train.images), halves["trainval"], torch.from_numpy(train.labels))
    assert threshold is not None

    # 3. copies between the halves, and in the folder
    write(f"Images of {config.dataset.label} are named below {listing.root.absolute()}")
    if "trainval" in halves:
        report_pairs(folder / "halves.csv", pairs(halves["test"], halves["trainval"], threshold), "both halves")
    if other is not None:
        for note in other[1]:
            write(note)
        rows = [
            row
            for part in of_folder(study, root if root.is_dir() else root.parent, other[0])
            for half in halves.values()
            for row in pairs(half, part, threshold)
        ]
        report_pairs(folder / "images.csv", rows, f"the data set and {config.images}")
    if "trainval" in halves:
        write(f"Next: {study.command(first_target(config))}")


def prepared(study: Study, folder: Path) -> Study:
    """The study as its images are read here: one view, by all cores, with the ledger in a folder of the command."""
    raw, cores = study.raw, usable_cores()
    more: Node = {} if study.config.study else {"study": escaped(str(folder))}
    views = 1 if study.config.descriptor == "features" else None
    threads = cores if study.config.image_threads == "auto" and cores > 1 else study.config.image_threads
    more |= {"training": raw["training"] | {"views": views}, "image_threads": threads, "image_memory": "host"}
    return Study.of(raw | more)


# -- names ------------------------------------------------------------------------------------------------------------


def compare_names(config: Config, listing: Listing, path: Path) -> None:
    """Print which classes of each half have a name that a class of the pretraining has too, and write all matches."""
    network, sets = config.trunk.network, config.trunk.pretrained_on
    sets = of_network(network) if sets is None else sets
    if config.trunk.module.get("weights", "") is None or not sets:
        write(f"{config.trunk.name} was not pretrained, as far as its configuration says: no class is known to it.")
        return
    for name in sets:
        if image_sets()[name].web:
            label = image_sets()[name].label
            write(f"{label}: images of the web, without a list of classes. Assume that it holds every class and image.")
    others: dict[str, str] = {}
    for name in class_lists(sets):
        others |= class_list(name)
    if not others:
        return
    rows = []
    write(f"Names of classes, compared with {len(others):,} of {', '.join(image_sets()[name].label for name in sets)}:")
    for half in ("test", "trainval"):
        names = [listing.class_names[i] for i in listing.classes(*ROLES_OF[half])]
        found = matches(names, others)
        rows += [[half, one.name, one.kind, one.other, one.synonym] for one in found]
        strongest = Counter({one.name: one.kind for one in reversed(found)}.values())
        parts = ", ".join(f"{strongest[kind]} {kind}" for kind in KINDS)
        write(f"{half}: {counted(len({*names}), 'name')}, of which {parts} (each by its strongest match)")
    write_csv(path, [("half", "class", "match", "id", "pretraining class"), *rows])
    write(f"wrote {path}")
    show(["half", "class", "match", "pretraining class"], [[*row[:3], row[4]] for row in rows if row[2] in STRONG])
    weak: dict[tuple[str, ...], list[str]] = {}
    for half, name, kind, _, other in rows:
        if kind not in STRONG:
            weak.setdefault((half, name, kind), []).append(other)
    if weak:
        write("Only the head noun is equal, or a name is contained without it, which says less:")
        show(
            ["half", "class", "match", "pretraining classes"],
            [[*key, named([*dict.fromkeys(same)])] for key, same in weak.items()],
        )


def class_list(name: str) -> Mapping[str, str]:
    """The names of a list of classes in timm, by WordNet id.

    Args:
        name: timm's name of the list.

    Raises:
        UserError: timm is not installed.
    """
    try:
        from timm.data import ImageNetInfo
    except ImportError as error:
        raise UserError(
            f"The lists of ImageNet's classes come with timm, which is not installed: {install('timm>=1.0.20')}"
        ) from error
    info = ImageNetInfo(name)
    return {one: info.label_name_to_description(one) for one in info.label_names()}


# -- images -----------------------------------------------------------------------------------------------------------


def paths_of(listing: Listing, half: str) -> list[str]:
    """The paths of the images of a half, in their order."""
    return [listing.paths[row] for row in np.flatnonzero(np.isin(listing.roles, ROLES_OF[half]))]


def of_folder(study: Study, root: Path, paths: Sequence[str]) -> Iterator[Described]:
    """The images of a folder, a part at a time, each of which is kept in the cache."""
    for first in range(0, len(paths), CHUNK):
        part = paths[first : first + CHUNK]
        source = DecodedOnRead(root, [*part], None, data.reading(study.config, None))
        yield described(study, source, part, "images")


def described(study: Study, source: Source, paths: Sequence[str], what: str) -> Described:
    """Describe images by what they are compared by.

    Args:
        study: its `descriptor` says what they are compared by, its data set and trunk how they are cropped.
        source: N images.
        paths: their N paths.
        what: the half or folder that they are of.

    Raises:
        UserError: an image cannot be read, the trunk cannot be built, or the disk is full.
    """
    pixels = study.make_pixels(source)
    if study.config.descriptor == "features":
        frozen.prepare_features(study, source)
        found = frozen.feature_images(study, source).views.view(0)
        return Described(pixels, normalize(found.float(), dim=1), paths, what)
    facts = {
        "images": source.contents,
        "crops": asdict(data.crops(study.config)),
        "reading": asdict(data.reading(study.config, None)),
        "side": SIDE,
        "code": code_of([*frozen.CODE], ("benchmark.images",)).digest,
    }
    folder = user_cache_dir() / "thumbnails" / records.digest(facts)[:24]
    shown = counting(f"{what}: images read", study.config.display)
    means = Views(pixels, Thumbnail, folder, number=1, seed=0).view(0, shown).float()
    return Described(pixels, normalize(means - means.mean(dim=1, keepdim=True), dim=1), paths, what)


def calibrated(study: Study, source: Source, train: Described, labels: Tensor) -> float:
    """Return the threshold, and print how many copies it finds, and how many other images it takes for copies.

    It is the cosine that most copies of training images reach, unless too many images of different classes reach it.

    Args:
        study: may have a threshold, which is returned.
        source: the N training images.
        train: what they are compared by.
        labels: (N,), their classes.
    """
    rows = np.unique(np.linspace(0, len(source) - 1, COPIES).astype(int))
    originals, wrong = train.vectors[torch.from_numpy(rows)], nearest_other_class(train.vectors, labels)
    cosines = {
        kind: (described(study, Copies(source, rows, make, kind), [], "copies").vectors * originals).sum(dim=1)
        for kind, make in COPIED.items()
    }
    threshold = study.config.threshold or chosen_threshold([*cosines.values()], wrong)
    write(f"Two images count as copies from a cosine of {threshold:.3f} of descriptor={study.config.descriptor}:")
    for kind, found in cosines.items():
        write(f"  {_share(found, threshold)} of {len(rows)} copies of training images reach it ({kind})")
    write(f"  {_share(wrong, threshold)} of {len(source):,} training images reach it with one of another class")
    return threshold


def chosen_threshold(copies: Sequence[Tensor], wrong: Tensor) -> float:
    """The cosine that `CAUGHT` of the copies of each kind reach; a higher one if more than `MISTAKEN` of others do too.

    It is at most `EQUAL`.

    Args:
        copies: for each kind, (K,), the cosines of copies with their originals.
        wrong: (N,), for each training image, the largest cosine with one of another class.
    """
    lowest = min(float(torch.quantile(found, 1 - CAUGHT)) for found in copies)
    return min(max(lowest, float(torch.quantile(wrong, 1 - MISTAKEN))), EQUAL)


def _share(cosines: Tensor, threshold: float) -> str:
    return f"{float((cosines >= threshold).float().mean()):.1%}"


def smaller(pixels: np.ndarray) -> np.ndarray:
    """A copy of an image, uint8 (H, W, 3): half its size, as a JPEG file of quality 50."""
    height, width = pixels.shape[:2]
    return _jpeg(Image.fromarray(pixels).resize((max(1, width // 2), max(1, height // 2))), 50)


def trimmed(pixels: np.ndarray) -> np.ndarray:
    """A copy of an image, uint8 (H, W, 3): without 2.5 % of the shorter side at each edge, as a JPEG of quality 75."""
    height, width = pixels.shape[:2]
    edge = int(0.025 * min(height, width))
    return _jpeg(Image.fromarray(pixels[edge : height - edge, edge : width - edge]), 75)


COPIED = {"half the size, JPEG of quality 50": smaller, "5 % cut off, JPEG of quality 75": trimmed}


def _jpeg(image: Image.Image, quality: int) -> np.ndarray:
    image.save(file := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def nearest_other_class(vectors: Tensor, labels: Tensor) -> Tensor:
    """The largest cosine (N,) of each of N vectors of length 1 (N, D) with one of another class; -1 without any.

    Args:
        vectors: (N, D).
        labels: (N,), their classes.
    """
    labels = labels.to(vectors.device)
    return torch.cat([
        (some @ vectors.T).masked_fill(own[:, None] == labels, -1.0).amax(dim=1)
        for some, own in zip(vectors.split(1024), labels.split(1024), strict=True)
    ])  # fmt: skip


def pairs(ones: Described, others: Described, threshold: float) -> list[list[str]]:
    """Rows of all pairs that are copies: what both are, whether their pixels are equal, the cosine, and both paths.

    Args:
        ones: N images.
        others: M images.
        threshold: cosine from which a pair counts.

    Raises:
        UserError: there are more than `MOST_PAIRS`.
    """
    found = []
    for number, some in enumerate(ones.vectors.split(1024)):
        cosines = some @ others.vectors.T
        for i, j in (cosines >= threshold).nonzero().tolist():
            row = 1024 * number + i
            cosine = float(cosines[i, j])
            kind = "equal pixels" if cosine >= EQUAL and _are_equal(ones.images, row, others.images, j) else "near"
            found.append([ones.what, others.what, kind, f"{cosine:.4f}", ones.paths[row], others.paths[j]])
        if len(found) > MOST_PAIRS:
            raise UserError(
                f"More than {MOST_PAIRS:,} pairs of images reach {threshold:.3f}: give a higher threshold, "
                f"{arguments({'threshold': 'NUMBER'})}"
            )
    return found


def _are_equal(ones: Images, row: int, others: Images, other: int) -> bool:
    return torch.equal(ones.plain(np.array([row])), others.plain(np.array([other])))


def report_pairs(path: Path, rows: list[list[str]], where: str) -> None:
    """Print how many images are in two places, and the nearest pairs, and write all of them."""
    rows = sorted(rows, key=lambda row: (row[2] != "equal pixels", -float(row[3]), *row[4:]))
    columns = ["half", "other", "pixels", "cosine", "image", "copy"]
    equal = sum(row[2] == "equal pixels" for row in rows)
    write(f"Copies in {where}: {counted(len(rows), 'pair')} of {counted(len({row[4] for row in rows}), 'image')}, "
          f"{equal:,} with equal pixels")  # fmt: skip
    write_csv(path, [columns, *rows])
    write(f"wrote {path}")
    show(columns, rows)


# -- output -----------------------------------------------------------------------------------------------------------


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the first rows of a table."""
    if rows:
        write_table(columns, rows[:SHOWN])
    if len(rows) > SHOWN:
        write(f"and {len(rows) - SHOWN:,} more")
