"""Convolutions and matrix products run in the configured precision, and records hold the precision in effect."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmark.bo import bo
from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.provenance import device_facts
from benchmark.final_eval import ScoreUnit, run_unit
from benchmark.images.in_memory import InMemoryImages
from benchmark.jobs import train_unit as train_unit_module
from benchmark.jobs.placement import with_precision
from benchmark.jobs.train_unit import train_unit
from benchmark.jobs.unit import Unit
from benchmark.protocol.retrieval import retrieval_metrics
from benchmark.study.cli import study_of
from benchmark.study.code import training_code
from benchmark.study.scoring import embed_test
from benchmark.study.stored import read_study
from benchmark.training import precision
from benchmark.training.checkpoint import Checkpoint, read_state, write_state
from benchmark.training.loop import train_fold
from benchmark.training.precision import (
    NOT_DETERMINISTIC,
    OPERATIONS,
    check_precision,
    effective_precision,
    fastest,
    forward,
    use_precision,
)  # fmt: skip
from tests.command_line import TINY, assert_refused, study_dir, tiny
from tests.training.small_fold import a_fold, a_schedule, nothing

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def flags() -> dict[str, list[str]]:
    return {kind: [operation.fp32_precision for operation in operations] for kind, operations in OPERATIONS.items()}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Flags of the process, which other tests share."""
    before = flags()
    yield
    for kind, operations in OPERATIONS.items():
        for operation, value in zip(operations, before[kind], strict=True):
            operation.fp32_precision = value
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def checkpoint(path: Path) -> Checkpoint:
    return Checkpoint(path, {}, lambda found: "", seconds=0)


def an_ampere(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (8, 0)) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


# -- flags ------------------------------------------------------------------------------------------------------------


def test_ieee_replaces_every_precision_that_was_set_before() -> None:
    for operations in OPERATIONS.values():
        for operation in operations:
            operation.fp32_precision = "tf32"
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    use_precision("ieee", CPU)
    use_precision("ieee", CPU)
    assert flags() == {"cuda": ["ieee"] * 3, "cpu": ["ieee"] * 3}


def test_ieee_undoes_the_tf32_of_an_earlier_unit_and_tf32_is_for_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    an_ampere(monkeypatch)
    use_precision("tf32", GPU)
    assert flags() == {"cuda": ["tf32"] * 3, "cpu": ["ieee"] * 3}
    use_precision("bf16", CPU)
    assert flags() == {"cuda": ["ieee"] * 3, "cpu": ["ieee"] * 3}


def relative_errors(device: torch.device) -> tuple[float, float]:
    """Errors of a convolution and of a product in float32, relative to the results in float64."""
    generator = torch.Generator().manual_seed(0)
    images, kernels = torch.randn(4, 32, 16, 16, generator=generator), torch.randn(32, 32, 3, 3, generator=generator)
    a, b = torch.randn(128, 256, generator=generator), torch.randn(256, 64, generator=generator)

    def error(operation: Any, *tensors: torch.Tensor) -> float:
        exact = operation(*(tensor.double() for tensor in tensors))
        found = operation(*(tensor.to(device) for tensor in tensors)).cpu()
        return float((found - exact).norm() / exact.norm())

    return error(functional.conv2d, images, kernels), error(torch.mm, a, b)


def test_float32_is_exact_to_its_last_digits_after_a_unit_in_less() -> None:
    for operation in OPERATIONS["cpu"][:2]:
        operation.fp32_precision = "bf16"
    use_precision("ieee", CPU)
    assert max(relative_errors(CPU)) < 1e-6


@pytest.mark.gpu
def test_a_gpu_computes_float32_in_ieee_and_less_exactly_in_tf32() -> None:
    use_precision("ieee", GPU)
    assert max(relative_errors(GPU)) < 1e-5
    assert effective_precision("ieee", GPU) == {"convolutions": "ieee", "products": "ieee", "autocast": None}
    use_precision("tf32", GPU)
    assert min(relative_errors(GPU)) > 5e-5
    assert effective_precision("tf32", GPU) == {"convolutions": "tf32", "products": "tf32", "autocast": None}
    use_precision("ieee", GPU)
    assert max(relative_errors(GPU)) < 1e-5


@pytest.mark.gpu
def test_a_gpu_is_named_with_its_libraries_when_it_trains() -> None:
    facts = device_facts(GPU, effective_precision("bf16", GPU))
    assert (facts["kind"], facts["name"]) == ("cuda", torch.cuda.get_device_name())
    assert facts["cuda"] and facts["cudnn"] and facts["precision"]["autocast"] == "bfloat16"
    assert device_facts(CPU, {})["name"] != facts["name"]


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [CPU, torch.device("mps"), GPU])
def test_tf32_is_refused_where_the_device_has_none(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    an_ampere(monkeypatch, (7, 5))
    before = flags()
    with pytest.raises(UserError, match=rf"precision=tf32: device={device} .*Ampere.* Give ieee or bf16"):
        use_precision("tf32", device)
    assert flags() == before


@pytest.mark.parametrize(
    ("variable", "value", "device", "name"),
    [
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", CPU, "ieee"),
        ("DNNL_DEFAULT_FPMATH_MODE", "any", CPU, "bf16"),
        ("NVIDIA_TF32_OVERRIDE", "1", GPU, "ieee"),
        ("NVIDIA_TF32_OVERRIDE", "0", GPU, "tf32"),
    ],
)
def test_an_environment_that_overrides_the_precision_is_refused(
    variable: str, value: str, device: torch.device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_ampere(monkeypatch)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=rf"precision={name}: {variable}={value} in the environment .* `unset"):
        check_precision(name, device)


def test_an_environment_that_agrees_or_is_about_another_device_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "strict")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    check_precision("ieee", CPU)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    check_precision("bf16", GPU)


def test_a_search_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert_refused(tiny(bo, results, "precision=tf32"), "precision=tf32: device=cpu", "ieee", "bf16")
    assert_refused(tiny(bo, results, "precision=fp16"), "precision='fp16': allowed are ieee, tf32, bf16, fast.")
    assert not results.exists()


def test_a_worker_that_lacks_the_precision_refuses_a_unit(compose_study: Any, tmp_path: Path) -> None:
    study = compose_study(*TINY, "precision=tf32")
    code = training_code(study).digest
    common = {"study": study, "fingerprint": "", "kind": "run", "index": 0, "setting": {}, "code": code,
              "study_identity": study.identity(""), "accepted": [code]}  # fmt: skip
    training = Unit(**common, fold=0, directory=tmp_path / "fold_0")
    scoring = ScoreUnit(**common, fold=None, directory=tmp_path / "run_00", trial=None, folds=[], seconds=[],
                        warnings=[], devices=[], costs={}, fold_code=[], test_contents=None)  # fmt: skip
    for run, unit in ((train_unit, training), (run_unit, scoring)):
        with pytest.raises(UserError, match="precision=tf32: device=cpu"):
            run(unit.to_json(), print)
    assert not list(tmp_path.rglob("*.json"))


# -- bfloat16 ---------------------------------------------------------------------------------------------------------


def test_bf16_changes_a_training_and_a_resumed_one_ends_bit_equal(tmp_path: Path) -> None:
    def trained(name: str, path: Path, max_epochs: int = 4, seed: int = 0) -> Any:
        fold = a_fold(seed)
        fold.precision = name
        return train_fold(fold, a_schedule(max_epochs=max_epochs, patience=99), checkpoint(path), nothing)

    full = trained("bf16", tmp_path / "full.pt")
    assert full.result["history"] != trained("ieee", tmp_path / "ieee.pt").result["history"]
    trained("bf16", tmp_path / "half.pt", max_epochs=2)
    resumed = trained("bf16", tmp_path / "half.pt", seed=9)
    assert resumed.result == full.result
    for part, state in full.weights.items():
        for name, value in state.items():
            assert value.dtype != torch.bfloat16 and torch.equal(resumed.weights[part][name], value)


@pytest.mark.slow
def test_a_search_in_bf16_has_other_results_and_records_its_precision(searched: Path, tmp_path: Path) -> None:
    assert tiny(bo, tmp_path, "precision=bf16", "trials=1").status == 0
    exact, rounded = (
        records.read_record(study_dir(results) / "bo" / "trial_000" / "fold_0" / "record.json")
        for results in (searched, tmp_path)
    )
    assert rounded.result["setting"] == exact.result["setting"]
    assert rounded.result["history"] != exact.result["history"]
    assert rounded.provenance["device"]["precision"]["autocast"] == "bfloat16"


def test_bf16_converts_trunk_and_head_and_nothing_else() -> None:
    seen = []

    def layer(images: torch.Tensor) -> torch.Tensor:
        product = images @ weights
        seen.append(product.dtype)
        return product

    weights = torch.ones(2, 2, requires_grad=True)
    images = torch.ones(3, 2)
    embeddings = forward(layer, layer, images, "bf16")
    assert seen == [torch.bfloat16] * 2 and embeddings.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu") and (embeddings @ weights).dtype == torch.float32
    with torch.no_grad():
        weights *= 2
    assert torch.equal(forward(layer, layer, images, "bf16"), 4 * embeddings), "weights are converted anew"


def test_the_final_evaluation_embeds_in_the_precision_of_the_study(compose_study: Any, tmp_path: Path) -> None:
    images = InMemoryImages(np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8), shift=0)

    def embedded(name: str) -> torch.Tensor:
        study = compose_study(*TINY, f"precision={name}")
        trunk = study.make_trunk(1, seed=1)
        head = study.make_head(trunk.out_features, seed=2)
        write_state(tmp_path / "best.pt", {"trunk": trunk.state_dict(), "head": head.state_dict(), "loss": {}}, {})
        return embed_test(study, tmp_path / "best.pt", lambda found: "", images)

    exact, rounded = embedded("ieee"), embedded("bf16")
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.02)


def test_metrics_do_not_depend_on_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 7
    use_precision("ieee", CPU)
    expected = retrieval_metrics(embeddings, labels)
    an_ampere(monkeypatch)
    use_precision("tf32", GPU)
    with torch.autocast("cpu", torch.bfloat16):
        assert retrieval_metrics(embeddings, labels) == expected
    assert flags()["cuda"] == ["tf32"] * 3


# -- what is recorded -------------------------------------------------------------------------------------------------


def test_the_recorded_precision_is_read_from_the_process_not_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    use_precision("ieee", CPU)
    assert effective_precision("ieee", CPU) == {"convolutions": "ieee", "products": "ieee", "autocast": None}
    assert effective_precision("bf16", CPU) == {"convolutions": "ieee", "products": "ieee", "autocast": "bfloat16"}
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    assert effective_precision("ieee", CPU) == {"convolutions": "bf16", "products": "ieee", "autocast": None}
    monkeypatch.setattr(precision, "forward", lambda trunk, head, images, name: head(trunk(images)))
    assert effective_precision("bf16", CPU)["autocast"] is None


def test_a_fold_resumed_on_another_kind_of_device_names_both(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train_fold(a_fold(), a_schedule(max_epochs=1), checkpoint(path), nothing)
    state = read_state(path, CPU, lambda found: "")
    assert state["progress"]["devices"] == ["cpu"]
    state["progress"]["devices"] = ["cuda"]
    write_state(path, state, {})
    assert train_fold(a_fold(), a_schedule(max_epochs=2), checkpoint(path), nothing).devices == ("cuda", "cpu")


# -- fast, deterministic ----------------------------------------------------------------------------------------------


def test_fast_is_what_the_device_has_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu: dict[str, bool] = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    assert fastest(CPU) == "ieee"
    cpu["avx512_bf16"] = True
    assert fastest(CPU) == "bf16" and fastest(torch.device("mps")) == "ieee"
    for capability, has_bf16, expected in (((9, 0), True, "bf16"), ((8, 0), False, "tf32"), ((7, 5), False, "ieee")):
        an_ampere(monkeypatch, capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bf16: has)
        assert fastest(GPU) == expected


@pytest.mark.slow
def test_a_study_keeps_the_precision_that_fast_stood_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "fastest", lambda device: "bf16")
    study = study_of([*TINY, f"results_dir={tmp_path}", "device=cpu", "precision=fast"])
    first = with_precision(study)
    assert first.config.precision == "bf16" and "precision=fast: bf16 on cpu" in capsys.readouterr().out
    tiny(bo, tmp_path, "precision=fast", "trials=1")
    assert read_study(study_dir(tmp_path)).config["precision"] == "bf16"
    monkeypatch.setattr(precision, "fastest", lambda device: "ieee")
    assert with_precision(study).config.precision == "bf16"


def test_fast_is_refused_where_other_machines_train(tmp_path: Path) -> None:
    study = study_of([*TINY, f"results_dir={tmp_path}", "precision=fast", "executor=slurm"])
    with pytest.raises(UserError, match=r"precision=fast .* executor=slurm trains on others\. Name .*: bf16"):
        with_precision(study)
    with pytest.raises(UserError, match="precision=fast: allowed are"):
        use_precision("fast", CPU)


def test_deterministic_holds_for_one_unit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    use_precision("ieee", CPU, deterministic=True)
    facts = device_facts(CPU, {})
    assert facts["deterministic_algorithms"] and facts["cudnn_deterministic"] and not facts["cudnn_benchmark"]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    use_precision("ieee", CPU)
    facts = device_facts(CPU, {})
    assert not facts["deterministic_algorithms"] and not facts["cudnn_deterministic"]


def test_an_operation_that_cannot_be_deterministic_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def needs_order(*parts: object) -> None:
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError(f"some_backward_cuda {NOT_DETERMINISTIC}, but you set ...\nmore")

    monkeypatch.setattr(train_unit_module, "train_fold", needs_order)
    assert_refused(
        tiny(bo, tmp_path, "deterministic=true", "trials=1"), "deterministic=true: some_backward_cuda", "device=cpu"
    )
