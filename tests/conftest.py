"""What several test files need."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.study import Study, conf_dir


@pytest.fixture
def compose_study(tmp_path: Path) -> Callable[..., Study]:
    """Compose a study with its results in a temporary folder: `compose_study("loss=hpl_pa", "trials=3")`."""

    def compose(*overrides: str) -> Study:
        from hydra import compose, initialize_config_dir

        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return Study.of(compose("config", [f"results_dir={tmp_path}/results", *overrides]))

    return compose


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk, where a test writes many records and is not about losing them."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
