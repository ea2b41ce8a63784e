"""Load a trained model: the networks of a run, and how an image becomes their input.

A model is named by the folder of a study or of one of its runs. A run's folder with `model.yaml` is complete by itself
and may lie anywhere; one of an earlier version needs its study and its data set.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.names import joined_names
from benchmark.core.places import usable_path
from benchmark.core.wording import ranges
from benchmark.images.batches import to_batch
from benchmark.study import kept_models, model_files, stored
from benchmark.study.instantiate import build
from benchmark.study.ledger import log_access
from benchmark.study.model_files import Mismatch, ModelFile, WeightsFile
from benchmark.study.plugins import plugins_option
from benchmark.study.selected import from_folder
from benchmark.study.study import Study
from benchmark.training.components import HeadModule, TrunkModule
from benchmark.training.precision import forward, use_precision

OF_MODEL = ("run", "plugins", "device")  # options of every command that loads a model


@dataclass(frozen=True, eq=False)
class Network:
    """One network of a model, in evaluation mode.

    Attributes:
        trunk: maps normalised images (B, channels, H, W) to features.
        head: maps features to embeddings (B, D).
    """

    trunk: TrunkModule
    head: HeadModule


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model.

    Attributes:
        described: the content of its `model.yaml`.
        directory: folder of its study; the run's own folder if it lies outside of a study.
        networks: one per fold.
        device: where they are.
    """

    described: ModelFile
    directory: Path
    networks: tuple[Network, ...]
    device: torch.device

    @property
    def name(self) -> str:
        """The model in messages."""
        return f"{self.described.loss} on {self.described.dataset}, run {self.described.run}"

    @property
    def stem(self) -> str:
        """The start of the names of files about it: the group and the folder of its study, and its run."""
        folder = self.directory.resolve()
        return joined_names(folder.parent.name, folder.name, f"run_{self.described.run:02d}")

    @property
    def is_joinable(self) -> bool:
        """Whether the embeddings of its networks can be concatenated; points of several balls cannot."""
        return self.described.distance != "hyperbolic" or len(self.networks) == 1

    @property
    def weights_digest(self) -> str:
        """A digest of everything that its embeddings depend on."""
        d = self.described
        return records.digest(
            [[one.sha256 for one in d.weights], repr(d.preprocessing), d.trunk, d.head, repr(d.frozen)]
        )

    @property
    def precision(self) -> str:
        """The precision of its training; `ieee` in place of `tf32` on a device without it."""
        tf32 = self.described.precision == "tf32" and self.device.type != "cuda"
        return "ieee" if tf32 else self.described.precision

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (F, B, D) by the F networks, float32 on the CPU, as retrieval compares them.

        Args:
            images: uint8 (B, channels, H, W), prepared as `described.preprocessing` says.

        Raises:
            UserError: the images have other channels than the networks take.
        """
        found = self.outputs(images)
        return (torch.nn.functional.normalize(found, dim=2) if self.described.distance == "cosine" else found).cpu()

    @torch.inference_mode()
    def outputs(self, images: Tensor) -> Tensor:
        """What the F networks return, (F, B, D), float32 on their device; nothing is normalised.

        Args:
            images: uint8 (B, channels, H, W), prepared as `described.preprocessing` says.

        Raises:
            UserError: the images have other channels than the networks take.
        """
        if images.shape[1] != self.described.preprocessing.channels:
            raise UserError(
                f"The images have {images.shape[1]} channels, but {self.name} takes "
                f"{self.described.preprocessing.channels}."
            )
        use_precision(self.precision, self.device)
        found = []
        for one in self.networks:
            batch = to_batch(images.to(self.device), one.trunk.mean, one.trunk.std)
            found.append(forward(one.trunk, one.head, batch, self.precision).float())
        return torch.stack(found)

    def log_if_tested_on(self, root: Path, looks: str) -> None:
        """Log an access in the test ledger if a folder holds images of the data set that the model was trained on.

        Args:
            root: folder of images that are about to be read.
            looks: what is looked at.

        Raises:
            OSError: the line cannot be written, so the images must not be read.
        """
        if not self.described.data_root:
            return
        own, asked = (Path(folder).expanduser().resolve() for folder in (self.described.data_root, root))
        if asked == own or own in asked.parents or asked in own.parents:
            log_access(self.directory, {"story": "use", "run": self.described.run, "looks": f"{looks} below {root}"})


def load(place: str, composed: Study, overrides: Sequence[str] = (), run: int = 0) -> Model:
    """Load the model of a study's run.

    Args:
        place: folder of a study, or of one of its runs.
        composed: the study of the command line, which supplies the device and the plug-ins.
        overrides: the overrides of the command line.
        run: number of the run, if a study is named.

    Raises:
        UserError: there is no model, it is another run, or it needs plug-ins that are not named.
        CorruptFileError: a file of it is damaged or altered.
    """
    folder = usable_path("model", place, "the folder of a study or of one of its runs")
    if (folder / model_files.NAME).is_file():
        found = model_files.read_description(folder)
        if run not in (0, found.run):
            raise UserError(f"run={run}: {folder} is run {found.run}. Leave run out, or name the folder of the study.")
        return _built(folder, found, [_anything] * len(found.weights), composed)
    above = next((one for one in (folder, *folder.parents[:3]) if (one / stored.NAME).is_file()), None)
    if above is None:
        wrong = (
            f"there is neither {stored.NAME} nor {model_files.NAME}" if folder.is_dir() else "there is no such folder"
        )
        raise UserError(
            f"model={place}: {wrong}. Name the folder of a study or of a run that has kept its weights, as a final "
            f"evaluation keeps those of its first run. {command('status')} lists the studies."
        )
    number = folder.name.removeprefix("run_")
    return _of_study(above, int(number) if above != folder and number.isdecimal() else run, composed, overrides)


def _of_study(folder: Path, number: int, composed: Study, overrides: Sequence[str]) -> Model:
    about = stored.read_study(folder)
    study = from_folder(folder, composed, [entry for entry in overrides if entry.startswith("plugins=")])
    kept = kept_models.find(study, about)
    chosen = next((one for one in kept.runs if one.number == number), None)
    if chosen is None:
        others = ranges(one.number for one in kept.runs)
        raise UserError(f"Run {number} of {folder} has kept no weights. Runs that have: {others} (run=NUMBER).")
    first = chosen.weights[0][0]
    home = first.parent if about.facts.story == "traditional" else first.parent.parent
    mismatches = [mismatch for _, mismatch in chosen.weights]
    if (home / model_files.NAME).is_file():
        return _built(home, model_files.read_description(home), mismatches, composed)
    files = [  # of an earlier version
        WeightsFile(file=str(path.relative_to(home)), sha256=hashlib.sha256(records.read_file(path)).hexdigest(),
                    not_trained_on=[]) for path, _ in chosen.weights
    ]  # fmt: skip
    described = model_files.describe(
        chosen.study, run=number, identity=about.identity, fingerprint=about.fingerprint,
        code=list((chosen.record.identity or {}).get("code", [])), weights=files,
    )  # fmt: skip
    return _built(home, described, mismatches, composed)


def _anything(identity: object) -> str:
    return ""  # outside of a study, there is nothing to compare an identity with


def _built(folder: Path, described: ModelFile, mismatches: Sequence[Mismatch], composed: Study) -> Model:
    """Build the networks, and fill them from their files."""
    if missing := sorted({*described.plugins} - {*composed.config.plugins}):
        raise UserError(
            f"{folder} needs the plug-ins {', '.join(missing)}, and no stored file may import code. If you trust them, "
            f"name them on the command line: {plugins_option(*described.plugins)}"
        )
    device, how = composed.make_device(), described.preprocessing
    networks, shared = [], dict[str, Tensor]()
    if described.frozen is not None:
        file = described.frozen
        shared = model_files.read_weights(folder / file.file, device, _anything, file.sha256)["trunk"]
    for one, mismatch in zip(described.weights, mismatches, strict=True):
        path = folder / one.file
        state = model_files.read_weights(path, device, mismatch, one.sha256)
        with torch.random.fork_rng(devices=[]):
            trunk = build(described.trunk, "trunk", plugins=described.plugins, in_channels=how.channels)
            head = build(described.head, "head", plugins=described.plugins, in_features=trunk.out_features,
                         embedding_dim=described.embedding_dim)  # fmt: skip
        try:
            trunk.load_state_dict(shared or state["trunk"])
            head.load_state_dict(state["head"])
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise records.CorruptFileError(f"{path} does not fit its model: {str(error).splitlines()[0]}.") from error
        if how.channels == 1 and hasattr(trunk, "grey_mean"):
            trunk.grey_mean.copy_(torch.tensor(how.mean).view(1, -1, 1, 1))
            trunk.grey_std.copy_(torch.tensor(how.std).view(1, -1, 1, 1))
        else:
            trunk.mean, trunk.std = tuple(how.mean), tuple(how.std)
        networks.append(Network(trunk.to(device).eval(), head.to(device).eval()))
    above = next((one for one in folder.parents[:3] if (one / stored.NAME).is_file()), folder)
    return Model(described, above, tuple(networks), device)
