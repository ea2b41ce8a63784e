"""make embed: embed the images of a folder with a trained model, as npz, CSV or Parquet.

    make embed MODEL=results/studies/GROUP/hpl_pa ROOT=some/images FORMAT=csv

Each image has its path, its folder as a label, and its embedding, which is L2-normalised where the loss compares by
cosine. Images that cannot be read are counted and named; the others are embedded.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("embed"))

from collections.abc import Sequence
from pathlib import Path

from benchmark.core.console import counting, write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command, key_of
from benchmark.core.names import joined_names
from benchmark.core.places import usable_path
from benchmark.core.wording import counted, first_lines
from benchmark.models import tables
from benchmark.models.embedding import Embedded, embed_files, listed
from benchmark.models.loaded import OF_MODEL, load
from benchmark.study.selected import check_read
from benchmark.study.study import Study

READS = (*OF_MODEL, "model", "images", "format", "folds", "embed_batch", "output", "results_dir", "display")


def embed(study: Study, overrides: list[str]) -> None:
    """Embed the images of a folder, and write them to a file.

    Args:
        study: names the model, the images and the output.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no such model or no image, an option is not allowed, or a package is not installed.
    """
    check_read("embed", overrides, READS, unread=())
    config = study.config
    kind = config.format or "npz"
    tables.check_format(kind)
    if not config.model or not config.images:
        example = command("embed", {"model": config.model or "FOLDER", "images": config.images or "FOLDER"})
        raise UserError(f"Name the model and the folder of images: {example}")
    root = usable_path("images", config.images)
    paths, notes = listed(root)
    model = load(config.model, study, overrides, config.run)
    separated = config.folds == "separated"
    if not (separated or model.is_joinable):
        raise UserError(f"The points of {model.name} cannot be concatenated to points of one ball: folds=separated.")
    for note in notes:
        write(note)
    folder = root if root.is_dir() else root.parent
    model.log_if_tested_on(folder, f"embeddings of {counted(len(paths), 'image')}")
    show = counting(f"{model.name}: images embedded", config.display)
    found = embed_files(model, folder, paths, batch_size=config.embed_batch, progress=show)
    report_bad(found, len(paths))
    if not found.paths:
        raise UserError(f"None of the images in {folder} can be read, so there is nothing to write.")
    name = joined_names(model.stem, root.resolve().name if root.is_dir() else root.stem)
    path = Path(config.output or Path(config.results_dir) / "embeddings" / f"{name}.{kind}")
    described = model.described
    tables.write(
        path, kind, found, separated=separated, distance=described.distance, options=described.distance_options
    )
    folds, count, dim = found.embeddings.shape
    shape = f"{folds} x {count} x {dim}" if separated else f"{count} x {folds * dim}"
    write(f"{model.name}: embeddings {shape} of {folder}\nwrote {path}")
    scored = path if kind == "npz" and len({*found.labels}) > 1 else None
    write(f"Next: {next_command(scored, config.model, folder, overrides)}")


def next_command(path: Path | None, model: str, folder: Path, overrides: Sequence[str]) -> str:
    """The shell command that uses embeddings: their scores, if the file has labels to score, else a search.

    Args:
        path: the file, if it can be scored.
        model: the model, as it was named.
        folder: folder of the images.
        overrides: the overrides on the command line.
    """
    if path is not None:
        return command("score", {"embeddings": path})
    given = {"model": model, "query": "IMAGE", "images": folder}
    return command("search", given, overrides=[entry for entry in overrides if key_of(entry) in OF_MODEL])


def report_bad(found: Embedded, total: int) -> None:
    """Print how many images cannot be read, and the first few with the reason."""
    if found.bad:
        lines: Sequence[str] = [f"{path} {reason}" for path, reason in found.bad]
        write(f"{len(found.bad):,} of {counted(total, 'image')} cannot be read and are left out:{first_lines(lines)}")
