import sys
from pathlib import Path

import pytest

from benchmark.core.cache_dir import VARIABLE, user_cache_dir


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_project_s_own_variable_comes_first_and_names_the_folder_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BENCHMARK_CACHE", "~/pixels")
    assert user_cache_dir() == tmp_path / "pixels"
    monkeypatch.setenv("BENCHMARK_CACHE", "")
    assert user_cache_dir() == tmp_path / "xdg" / "metric-learning-benchmark"


def test_the_user_s_cache_is_where_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "metric-learning-benchmark"


@pytest.mark.parametrize("value", [None, "", "relative/folder"])
@pytest.mark.parametrize(("platform", "place"), [("linux", ".cache"), ("darwin", "Library/Caches")])
def test_without_an_absolute_xdg_folder_it_is_where_the_system_keeps_it(monkeypatch, tmp_path, value, platform, place):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    assert user_cache_dir() == tmp_path / place / "metric-learning-benchmark"


def test_on_windows_it_is_the_local_application_data(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert user_cache_dir() == tmp_path / "local" / "metric-learning-benchmark"
    monkeypatch.delenv("LOCALAPPDATA")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert user_cache_dir() == tmp_path / "AppData" / "Local" / "metric-learning-benchmark"
