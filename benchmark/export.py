"""make export: write a trained model for other programs, as ONNX, TorchScript or the files that timm reads.

    make export MODEL=results/studies/GROUP/hpl_pa FORMAT=onnx

ONNX and TorchScript take pixels scaled to [0, 1] and hold the normalisation; they return the embeddings of all
folds side by side, or with `folds=separated` one file per fold. What is printed says how images are cropped.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("export"))

from pathlib import Path

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.models import exporting
from benchmark.models.loaded import OF_MODEL, Model, load
from benchmark.study.selected import check_read
from benchmark.study.study import Study

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "timm": ""}
READS = (*OF_MODEL, "model", "format", "folds", "output", "results_dir", "display")


def export(study: Study, overrides: list[str]) -> None:
    """Write a model in another format.

    Args:
        study: names the model, the format and the output.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no such model, the format cannot hold it, or an option is not read.
    """
    check_read("export", overrides, READS, unread=())
    config, kind = study.config, study.config.format or "onnx"
    if kind not in exporting.FORMATS:
        raise UserError(f"format={kind}: allowed are {', '.join(exporting.FORMATS)}.")
    if not config.model:
        raise UserError(f"Name the model: {command('export', {'model': 'FOLDER', 'format': kind})}")
    model = load(config.model, study, overrides, config.run)
    path = Path(config.output or Path(config.results_dir) / "export" / f"{model.stem}{SUFFIXES[kind]}")
    for written in exporting.export(model, kind, path, separated=config.folds == "separated"):
        write(f"wrote {written}")
    write("\n".join(about(model.described.preprocessing.channels, model, kind)))


def about(channels: int, model: Model, kind: str) -> list[str]:
    """Lines that say what an exported network takes and returns.

    Args:
        channels: 3 for RGB, 1 for grey.
        model: the model.
        kind: the format.
    """
    how = model.described.preprocessing
    colours = "RGB" if channels == 3 else "grey"
    taken = f"(B, {channels}, {how.crop}, {how.crop}), {colours}, pixels scaled to [0, 1]"
    norm = f", minus {how.mean}, divided by {how.std}" if kind == "timm" else ""
    return [
        f"images: {taken}{norm}; shorter side resized to {how.short_side}, central crop of {how.crop} pixels",
        f"compare embeddings by: {model.described.distance}",
    ]
