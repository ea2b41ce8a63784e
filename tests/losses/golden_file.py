"""Golden files: their location, and how to read one in a given floating type."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

OWN_DIR = Path(__file__).parents[1] / "golden"
GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR") or OWN_DIR)
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


class Golden:
    """A golden file in one floating type; `compare` compares a result with one of its arrays."""

    def __init__(self, path, dtype):
        with np.load(path) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))
        self.hyper, self.dtype, self.compared = self.meta["hyper"], dtype, set()

    def __getitem__(self, key):
        """Return a stored array; if the file has none, it must state the value as a hyper-parameter."""
        value = torch.from_numpy(np.array(self.arrays[key] if key in self.arrays else self.hyper[key]))
        return value.to(self.dtype) if value.is_floating_point() else value

    def leaf(self, key):
        return self[key].requires_grad_()

    def option(self, key, default, **meanings):
        """Return the meaning of a hyper-parameter; an unknown value fails the test."""
        value = self.hyper.get(key, default)
        for start, meaning in meanings.items():
            if str(value).lower().startswith(start):
                return meaning
        pytest.fail(f"This test does not know {key}={value!r}; it knows {', '.join(meanings)}. Meta: {self.meta}")

    def compare(self, key, actual, index=...):
        expected = self.arrays[key][index]
        actual = np.asarray(actual.detach() if isinstance(actual, torch.Tensor) else actual)
        tolerance = TOLERANCE[self.dtype]
        scale = np.nanmax(np.abs(expected), initial=1e-2)
        note = f"{key}[{index}] in {self.dtype}; meta: {self.meta}"
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale, err_msg=note)
        self.compared.add(key)
