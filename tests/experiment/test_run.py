"""Commands of an experiment as processes."""

import contextlib
import sys
from pathlib import Path

import pytest

from benchmark.core.console import OutputError
from benchmark.experiment.run import Command, Job, run_all


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_experiment_whose_output_cannot_be_written_ends_with_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 - closing it fails, too
    monkeypatch.setattr(sys, "stdout", full)
    try:
        with pytest.raises(OutputError, match="No space left on device"):
            run_all([Job((Command("glyphs/hpl_pa", "--help", ()),)), Job((Command("glyphs/ms", "--help", ()),))])
    finally:
        with contextlib.suppress(OSError):
            full.close()
