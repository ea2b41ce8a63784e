"""Features of a frozen trunk, computed once per image and view and kept on disk.

Source: this project; training a small head on the features of a large frozen network is common practice. View 0 is the
image as it is evaluated, the others are random crops, as a trained trunk would see them. All views of an image are
functions of a seed, so that two machines compute the same views, and the same features up to the device's rounding.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.memory import return_freed_memory
from benchmark.images import Images
from benchmark.images.batches import embed, to_device
from benchmark.protocol.seeds import stable_seed

WAIT_SECONDS = 24 * 3600.0  # for another process that computes the same view
Progress = Callable[[int, int], None]  # images done, images to do


class Views:
    """The features of N images under several views, float16; a view is computed when it is first needed.

    Args:
        images: N images, in the format of the trunk.
        make_trunk: builds the trunk, (B, Ch, H, W) -> (B, F), on the images' device.
        folder: where the views are kept; its name must identify the images, the trunk, the seed and the kind of device.
        number: views of each image, at least 1: the one that is evaluated, and random ones.
        seed: seed of the random views.
    """

    def __init__(
        self, images: Images, make_trunk: Callable[[], nn.Module], folder: Path, *, number: int, seed: int
    ) -> None:
        self.images, self.folder, self.number = images, folder, number
        self._make_trunk, self._seed = make_trunk, seed
        self._read: dict[int, Tensor] = {}
        self._stack: Tensor | None = None  # (V, N, F), of which the views are parts, once random ones are drawn

    def view(self, number: int, progress: Progress | None = None) -> Tensor:
        """The features (N, F) of one view, float16, on the images' device.

        Args:
            number: 0 for the images as they are evaluated, above for a random view.
            progress: called after each batch if the view has to be computed.

        Raises:
            UserError: features are not finite in float16, or the disk is full.
        """
        if number not in self._read:
            path = self._path(number)
            found = self._stored(path)
            if found is None:  # reading needs no lock, nor a folder that can be written
                with records.only_one(path.with_suffix(".lock"), str(path), WAIT_SECONDS):
                    found = self._stored(path)  # another process may have computed it meanwhile
                    if found is None:
                        if path.exists():
                            records.quarantine(path)
                        found = self._compute(number, progress)
                        records.write_checked(path, found.tobytes())
            self._read[number] = torch.from_numpy(found).to(self.images.device)
        return self._read[number]

    def drawn(self, numbers: Tensor, rows: Tensor) -> Tensor:
        """The features (B, F) of some images, each under one of the views, float16.

        Args:
            numbers: (B,), int64, the view of each image.
            rows: (B,), int64, the images.

        Raises:
            UserError: see `view`.
        """
        if self._stack is None:
            stack = torch.empty(self.number, *self.view(0).shape, dtype=torch.float16, device=self.images.device)
            for number in range(self.number):
                stack[number] = self.view(number)
                self._read[number] = stack[number]
            self._stack = stack
        return self._stack[numbers, rows]

    def missing(self) -> list[int]:
        """Numbers of the views that are not on disk."""
        return [n for n in range(self.number) if n not in self._read and not self._path(n).is_file()]

    def _path(self, number: int) -> Path:
        return self.folder / f"view_{number:03d}.bin"

    def _stored(self, path: Path) -> np.ndarray | None:
        """The features in a file, (N, F); None if it is missing or damaged."""
        try:
            return np.frombuffer(bytearray(records.read_checked(path)), np.float16).reshape(len(self.images), -1)
        except (FileNotFoundError, records.CorruptFileError, ValueError):
            return None

    def _compute(self, number: int, progress: Progress | None) -> np.ndarray:
        done, total = 0, len(self.images)

        def read(rows: np.ndarray) -> Tensor:
            if number == 0:
                return self.images.plain(rows)
            seed = stable_seed(self._seed, "view", number, int(rows[0]))
            return self.images.augmented(rows, torch.Generator().manual_seed(seed))

        trunk = self._make_trunk()

        def tracked(batch: Tensor) -> Tensor:
            nonlocal done
            found: Tensor = trunk(batch)
            done += len(batch)
            if progress:
                progress(done, total)
            return found

        found = embed(tracked, self.images, trunk, nn.Identity(), read=read).to(torch.float16)
        if not bool(torch.isfinite(found).all()):
            raise UserError(
                f"{type(trunk).__name__} has features that float16 cannot hold, so it cannot be used frozen. Choose "
                "another trunk, or train it: training=finetune."
            )
        return_freed_memory()
        return found.cpu().numpy()


class FeatureImages:
    """Images that are represented by the features of a frozen trunk; an `Images` of (B, F) instead of (B, Ch, H, W).

    A training batch takes one of the views of each image at random; an evaluation takes view 0.

    Args:
        views: the features of all images of the half.
        rows: int64 (N,), indices of the selected images.
    """

    eval_batch_size = 4096
    threads = 0
    device: torch.device

    def __init__(self, views: Views, rows: np.ndarray) -> None:
        self.views, self.rows = views, rows
        self.device = views.images.device

    @property
    def channels(self) -> int:
        """F, the number of features."""
        return self.views.view(0).shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: np.ndarray) -> "FeatureImages":
        """Select the images at the given rows, int64 (M,), in this order."""
        return FeatureImages(self.views, self.rows[rows])

    def plain(self, rows: np.ndarray) -> Tensor:
        """Return the features of the given rows, int64 (B,), as they are evaluated: float16 (B, F)."""
        return self.views.view(0)[to_device(self.rows[rows], self.device)]

    def augmented(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Return the features of a random view of each of the given rows, int64 (B,): float16 (B, F)."""
        numbers = torch.randint(self.views.number, (len(rows),), generator=generator).numpy()
        return self.views.drawn(to_device(numbers, self.device), to_device(self.rows[rows], self.device))
