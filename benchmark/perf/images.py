"""Cost of loading images: reading from the cache, compared with decoding at every use.

The baseline is torchvision's loader and transforms, composed as in the Reality Check's code, up to uint8; both sides
skip the steps that follow (conversion to float, normalisation, BGR). The photographs are synthetic, of CUB's usual 500
x 375 pixels: noise at four scales, as JPEGs of quality 90.
"""

import functools
import hashlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from benchmark.core import records
from benchmark.core.threads import usable_cores
from benchmark.images import shards
from benchmark.images.cache import Cache, build
from benchmark.images.cropped import CroppedImages
from benchmark.images.crops import Crops, draw_boxes
from benchmark.images.decoded_on_read import contents_of
from benchmark.perf.timing import Row, in_fresh_process, interleave, ratio_row

HEIGHT, WIDTH, QUALITY = 375, 500, 90
NUM_FILES = 768  # with only 256, the tail that one thread decodes alone would bias the ratio
NUM_READ = 12_000
BATCH = 32
CPU = torch.device("cpu")
REPEATS = 3
MLRC = Crops(short_side=256, crop=227, scale=(0.16, 1.0), ratio=(0.75, 1.33), flip=0.5, resize_first=True)


def image_inputs() -> Iterator[Row]:
    """Rows for filling the cache, evaluation and training crops, cropping alone, opening the cache, and memory."""
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "images", Path(folder) / "cache"
        paths = photographs(root)
        yield filling(root, paths, Path(folder))
        build(cache, root, paths, short_side=MLRC.short_side, workers=1)
        files = [root / path for path in paths]
        yield from evaluating(Cache(cache), files)
        yield from training(Cache(cache), files)
        yield from cropping(Cache(cache))
        stretch(cache)
        yield opening(cache)
        yield reading(cache)


def photographs(root: Path) -> list[str]:
    """Write `NUM_FILES` JPEGs and return their names."""
    root.mkdir(parents=True)
    rng, names = np.random.default_rng(0), [f"{i:05}.jpg" for i in range(NUM_FILES)]
    for name in names:
        pixels = np.zeros((HEIGHT, WIDTH, 3))
        for share, blocks in ((0.5, 64), (0.25, 16), (0.15, 4), (0.05, 1)):
            noise = rng.integers(0, 256, (HEIGHT // blocks + 1, WIDTH // blocks + 1, 3), dtype=np.uint8)
            pixels += share * np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        Image.fromarray(pixels.astype(np.uint8)).save(root / name, quality=QUALITY)
    return names


def filling(root: Path, paths: list[str], folder: Path) -> Row:
    """The row for filling a cache: wall-clock time with one thread over two."""
    what, target = "filling the image cache, 2 threads", (">=", 1.8)
    if usable_cores() < 2:
        return Row(what, target, [], "this machine has one core")

    def fill(workers: int) -> None:
        build(folder / "filled", root, paths, short_side=MLRC.short_side, workers=workers)
        shutil.rmtree(folder / "filled")

    spent = interleave({str(workers): functools.partial(fill, workers) for workers in (1, 2)}, REPEATS)
    rate = statistics.median(len(paths) / one.wall for one in spent["1"])
    walls = [one.wall / two.wall for one, two in zip(spent["1"], spent["2"], strict=True)]
    return Row(what, target, walls, f"one thread ({rate:,.0f} images/s) over two, wall clock", wall=walls)


def evaluating(cache: Cache, files: list[Path]) -> Iterator[Row]:
    """The row for central crops from the cache, compared with decoding, resizing and cropping at every use."""
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

    cropped = CroppedImages(cache, np.arange(len(files)), MLRC, CPU)
    transform = Compose([Resize(MLRC.short_side), CenterCrop(MLRC.crop), PILToTensor()])

    def theirs(rows: np.ndarray) -> Tensor:
        return torch.stack([transform(default_loader(str(files[row]))) for row in rows])

    for rows in batches(len(files)):
        check_equal(cropped.plain(rows), theirs(rows))
    whats = {"ours": ("evaluation crops from the cache", 5.0)}
    yield from ratios(whats, {"ours": cropped.plain, "theirs": theirs}, len(files))


def training(cache: Cache, files: list[Path]) -> Iterator[Row]:
    """Rows for random crops from the cache, compared with decoding, resizing, cropping and flipping at every use."""
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms import Compose, PILToTensor, RandomHorizontalFlip, RandomResizedCrop, Resize
    from torchvision.transforms.functional import hflip, pil_to_tensor, resized_crop

    crop = RandomResizedCrop(MLRC.crop, MLRC.scale, MLRC.ratio)
    transform = Compose([Resize(MLRC.short_side), crop, RandomHorizontalFlip(MLRC.flip), PILToTensor()])
    generator = torch.Generator()

    def theirs(rows: np.ndarray) -> Tensor:
        return torch.stack([transform(default_loader(str(files[row]))) for row in rows])

    def same_crops(rows: np.ndarray) -> Tensor:
        boxes, mirrored = draw_boxes(cache.sizes[rows], MLRC, generator.manual_seed(0))
        cut = [Resize(MLRC.short_side)(default_loader(str(files[row]))) for row in rows]
        cut = [resized_crop(image, *box, [MLRC.crop] * 2) for image, box in zip(cut, boxes.tolist(), strict=True)]
        return torch.stack([pil_to_tensor(hflip(i) if turned else i) for i, turned in zip(cut, mirrored, strict=True)])

    def ours(resampling: str) -> Callable[[np.ndarray], Tensor]:
        crops = replace(MLRC, resampling=resampling)
        return functools.partial(CroppedImages(cache, np.arange(len(files)), crops, CPU).augmented, generator=generator)

    rows = np.arange(min(BATCH, len(files)))
    expected = same_crops(rows)
    check_equal(CroppedImages(cache, rows, MLRC, CPU).augmented(rows, generator.manual_seed(0)), expected)
    jobs = {"theirs": theirs, "pil": ours("pil"), "torch": ours("torch")}
    whats = {"pil": ("training crops from the cache", 4), "torch": ("training crops, resampling=torch", 7)}
    yield from ratios(whats, jobs, len(files))


def cropping(cache: Cache) -> Iterator[Row]:
    """Rows for random crops, compared with those that `one_by_one` makes from the same cache."""
    generator, rows = torch.Generator(), np.arange(min(BATCH, len(cache)))
    for resampling, target in (("pil", 1.1), ("torch", 2.0)):
        crops = replace(MLRC, resampling=resampling)
        images = CroppedImages(cache, np.arange(len(cache)), crops, CPU)
        jobs = {
            "usual": functools.partial(one_by_one, cache, crops, rows, generator),
            "ours": functools.partial(images.augmented, rows, generator),
        }
        generator.manual_seed(0)
        expected = jobs["usual"]()
        generator.manual_seed(0)
        check_equal(jobs["ours"](), expected)
        spent = interleave(jobs, 3 * REPEATS)
        rate = statistics.median(len(rows) / one.cpu for one in spent["ours"])
        how = f"images/s per core ({rate:,.0f}) over planes that are resized, then mirrored as a batch"
        yield ratio_row(f"cropping alone, resampling={resampling}", (">=", target), spent["usual"], spent["ours"], how)


def one_by_one(cache: Cache, crops: Crops, rows: np.ndarray, generator: torch.Generator) -> Tensor:
    """Random crops as they are usually made: planes for torch, copied into a batch whose rows are mirrored by indexing.

    Args:
        cache: the images.
        crops: distribution of the crops, and how they are resized.
        rows: int64 (B,).
        generator: draws the boxes.

    Returns:
        uint8 (B, 3, crop, crop).
    """
    boxes, mirrored = draw_boxes(cache.sizes[rows], crops, generator)
    batch = np.empty((len(rows), crops.crop, crops.crop, 3), np.uint8)
    for place, row, (top, left, height, width) in zip(batch, rows.tolist(), boxes.tolist(), strict=True):
        part = cache.pixels(row)[top : top + height, left : left + width].copy()
        if crops.resampling == "pil":
            place[:] = np.asarray(Image.fromarray(part).resize((crops.crop, crops.crop), Image.Resampling.BILINEAR))
        else:
            planes = torch.from_numpy(part).permute(2, 0, 1)[None]
            planes = functional.interpolate(planes, (crops.crop, crops.crop), mode="bilinear", antialias=True)
            place[:] = planes[0].permute(1, 2, 0).numpy()
    found = torch.from_numpy(batch).permute(0, 3, 1, 2)
    turned = torch.from_numpy(np.flatnonzero(mirrored))
    found[turned] = found[turned].flip(3)
    return found


def ratios(
    whats: Mapping[str, tuple[str, float]], jobs: Mapping[str, Callable[[np.ndarray], Tensor]], number: int
) -> Iterator[Row]:
    """Rows for the time of the job `theirs` over that of each job in `whats`, on one core, in batches.

    Args:
        whats: name and target of the row, by job.
        jobs: functions from rows (B,) to images (B, Ch, H, W), by name.
        number: images to process.
    """

    def all_of(work: Callable[[np.ndarray], Tensor]) -> None:
        for rows in batches(number):
            work(rows)

    spent = interleave({name: functools.partial(all_of, work) for name, work in jobs.items()}, REPEATS)
    rate = {name: statistics.median(number / one.cpu for one in each) for name, each in spent.items()}
    for name, (what, target) in whats.items():
        how = f"images/s per core ({rate[name]:,.0f}) over torchvision's from files ({rate['theirs']:,.0f})"
        yield ratio_row(what, (">=", target), spent["theirs"], spent[name], how)


def batches(number: int) -> list[np.ndarray]:
    """The rows 0 .. number - 1 in batches (B,)."""
    return np.split(np.arange(number), range(BATCH, number, BATCH))


def check_equal(ours: Tensor, theirs: Tensor) -> None:
    """Check that both sides made equal images (B, Ch, H, W), since speed counts only for correct results.

    Raises:
        ValueError: a pixel differs.
    """
    if not torch.equal(ours, theirs):
        raise ValueError(
            f"{int((ours != theirs).sum())} values differ from torchvision's. Run make test; if it passes, please "
            "report this with the line of versions above."
        )


def opening(folder: Path) -> Row:
    """The row for opening a cache of at least `NUM_READ` images whose pixels were verified before."""
    spent = interleave({"open": lambda: Cache(folder), "verify": Cache(folder).verify}, REPEATS)
    number, seconds = len(Cache(folder)), statistics.median(one.wall for one in spent["open"])
    how = f"opening {number:,} verified images ({1000 * seconds:,.0f} ms) over reading and hashing all their pixels"
    return ratio_row("opening a verified cache", ("<=", 0.1), spent["open"], spent["verify"], how)


def reading(folder: Path) -> Row:
    """The row for the memory of a process that reads `NUM_READ` images in order, as an evaluation does."""
    what, target = "private memory for cached images", ("<=", 300)
    if not Path("/proc/self/smaps_rollup").exists():
        return Row(what, target, [], "this system does not report it", "MB")
    megabytes = float(in_fresh_process(f"images.child({str(folder)!r})"))
    return Row(what, target, [megabytes], f"peak growth of a process that reads {NUM_READ:,} images in order", "MB")


def child(folder: str) -> None:
    """Read the whole cache and print the peak growth of memory, in MB."""
    before, peak, cache = private_megabytes(), 0.0, Cache(Path(folder))
    for row in range(len(cache)):
        cache.pixels(row).max()
        if row % shards.SHARD == shards.SHARD - 1:  # the end of a shard
            peak = max(peak, private_megabytes())
    print(peak - before)


def stretch(folder: Path) -> None:
    """Extend a cache to at least `NUM_READ` images by repeating the sizes of its first shard, as sparse black files.

    In memory, a page of a hole takes as much space as any other page.
    """
    first = records.read_record(shards.metadata_path(folder, 0))
    size = shards.pixels_path(folder, 0, first.result["pixels"]).stat().st_size
    first.result["pixels"] = hashlib.sha256(bytes(size)).hexdigest()
    count = -(-NUM_READ // len(first.result["sizes"]))
    for number in range(count):
        records.write_record(shards.metadata_path(folder, number), first)
        path = shards.pixels_path(folder, number, first.result["pixels"])
        path.touch()
        os.truncate(path, size)
    about = records.read_record(folder / "about.json")
    sha256 = [sha256 for _, _, sha256 in first.result["files"]] * count
    about.result.update(num_pictures=len(sha256), contents=contents_of(sha256))
    records.write_record(folder / "about.json", about)


def private_megabytes() -> float:
    """Private memory of this process, in MB of 10^6 bytes (Linux only)."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6
