"""make search: find the images of a folder that are nearest to an image, or to each image of a folder.

    make search MODEL=results/studies/GROUP/hpl_pa QUERY=photo.jpg ROOT=some/images

Prints them with their similarity (or distance), and writes a page that opens from disk. The embeddings of the folder,
and an index of them, stay in the cache: the next search embeds only the images that were added or changed. A query that
is itself an image of the folder is not found.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("search"))

from pathlib import Path

from benchmark.core import records
from benchmark.core.console import counting, write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command, key_of
from benchmark.core.names import joined_names
from benchmark.core.places import usable_path
from benchmark.core.wording import counted, first_lines
from benchmark.models import gallery
from benchmark.models.embedding import embed_files, listed
from benchmark.models.exporting import has_onnx
from benchmark.models.loaded import OF_MODEL, Model, load
from benchmark.models.page import Hit, page
from benchmark.study.selected import check_read
from benchmark.study.study import Study

MOST_ON_PAGE = 100  # queries
READS = (*OF_MODEL, "model", "query", "images", "nearest", "embed_batch", "output", "results_dir", "display")


def search(study: Study, overrides: list[str]) -> None:
    """Search a folder of images for those nearest to each query, print them and write the page.

    Args:
        study: names the model, the queries and the folder.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no such model or image, no query can be read, or an option is not read.
    """
    check_read("search", overrides, READS, unread=())
    config = study.config
    if not (config.model and config.query and config.images):
        given = {key: getattr(config, key) or default
                 for key, default in (("model", "FOLDER"), ("query", "IMAGE"), ("images", "FOLDER"))}  # fmt: skip
        raise UserError(f"Name the model, the query and the folder to search: {command('search', given)}")
    asked, root = usable_path("query", config.query), usable_path("images", config.images)
    names, _ = listed(asked)
    if not root.is_dir():
        raise UserError(f"images={config.images}: there is no such folder to search.")
    paths, _ = listed(root)
    model = load(config.model, study, overrides, config.run)
    folder = asked if asked.is_dir() else asked.parent
    for place in dict.fromkeys([folder, root]):
        model.log_if_tested_on(place, "a search for nearest images")
    show = counting(f"{root}: images embedded", config.display)
    opened = gallery.open_gallery(model, root, paths, batch_size=config.embed_batch, progress=show)
    found = embed_files(model, folder, names, batch_size=config.embed_batch)
    bad = [f"{path} {reason}" for path, reason in (*opened.found.bad, *found.bad)]
    if bad:
        write(f"{counted(len(bad), 'image')} cannot be read and left out:{first_lines(bad)}")
    if not found.paths:
        raise UserError(f"query={config.query}: no image there can be read.")

    # one more than asked for, since a query may be an image of the folder
    places, scores = gallery.search(model, opened, found.embeddings, config.nearest + 1)
    count, new = len(opened.found.paths), opened.num_new
    how = "similarity" if model.described.distance == "cosine" else f"{model.described.distance} distance"
    about = f"{model.name}: the nearest of {count:,} images in {root}, with their {how}"
    write(f"{about} ({new:,} embedded, {count - new:,} from the cache)")
    results = []
    for query, row, values in zip(found.paths, places, scores, strict=True):
        file = folder / query
        hits = [Hit(opened.found.paths[i], root / opened.found.paths[i], float(value))
                for i, value in zip(row.tolist(), values.tolist(), strict=True)
                if (root / opened.found.paths[i]).resolve() != file.resolve()]  # fmt: skip
        results.append((query, file, hits[: config.nearest]))
        write("\n".join([f"\n{file}", *(f"  {rank:3d}  {hit.score:.4f}  {hit.path}" for rank, hit in
                                       enumerate(hits[: config.nearest], 1))]))  # fmt: skip
    name = joined_names(model.stem, asked.resolve().name if asked.is_dir() else asked.stem)
    target = Path(config.output or Path(config.results_dir) / "search" / f"{name}.html")
    content = page(f"Nearest images: {config.query}", f"{about}.", results[:MOST_ON_PAGE])
    records.write_whole(target, content.encode("utf-8", "replace"))
    more = f", with the first {MOST_ON_PAGE} of {len(results):,} queries" * (len(results) > MOST_ON_PAGE)
    write(f"\nwrote {target}{more}")
    own = [entry for entry in overrides if key_of(entry) in OF_MODEL]
    write(f"Next: {command('export', next_options(model, config.model), overrides=own)}")


def next_options(model: Model, name: str) -> dict[str, str]:
    """Options of an export that works with this model and the installed packages.

    Args:
        model: the model.
        name: the model, as it was named.
    """
    apart = {} if model.is_joinable else {"folds": "separated"}
    return {"model": name, "format": "onnx" if has_onnx() else "torchscript"} | apart
