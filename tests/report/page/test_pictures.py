"""Pictures of a page: what `make figures` drew, embedded until there is no room."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from benchmark.report.page.pictures import WIDTH, embedded


def drawn(folder: Path, name: str, size: tuple[int, int] = (8, 4)) -> None:
    (folder / "figures").mkdir(exist_ok=True, parents=True)
    Image.effect_noise(size, 50).save(folder / "figures" / f"{name}.png")


def test_what_figures_drew_is_embedded_with_its_origin(tmp_path: Path) -> None:
    drawn(tmp_path, "run_03_embeddings_tsne", (2 * WIDTH, WIDTH // 2))
    drawn(tmp_path, "run_03_other")
    drawn(tmp_path, "search")
    (found,) = embedded([("HPL-PA", tmp_path)])
    assert found.title.startswith("HPL-PA, run 3. Test embeddings") and found.path.endswith("_tsne.png")
    kind, _, data = found.data.partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (kind, image.format, image.size) == ("data:image/webp;base64", "WEBP", (WIDTH, WIDTH // 4))


def test_what_does_not_fit_is_named_and_what_is_damaged_is_passed_over(tmp_path: Path) -> None:
    for name in ("run_00_hierarchy", "run_01_hierarchy"):
        drawn(tmp_path, name, (64, 64))
    (tmp_path / "figures" / "run_02_hierarchy.png").write_bytes(b"no image")
    size = len(embedded([("x", tmp_path)])[0].data)
    first, second = embedded([("x", tmp_path)], room=size + 1)
    assert first.data and not second.data and second.path.endswith("run_01_hierarchy.png")


@pytest.mark.slow
def test_a_page_shows_the_first_of_a_run_s_models_and_wide_pictures_at_full_width(tmp_path: Path) -> None:
    for model in (0, 1, 10):
        drawn(tmp_path, f"run_00_hierarchy_model_{model}", (1300, 2600))
    drawn(tmp_path, "run_00_retrieval", (800, 100))
    tree, panel = embedded([("HPL-PA", tmp_path)])
    assert tree.path.endswith("model_0.png") and tree.title.startswith("HPL-PA, run 0, model 0. The learned hierarchy")
    assert tree.is_wide and not panel.is_wide
    assert panel.title.startswith("HPL-PA, run 0. Retrieved images")
