"""ViT-S/16 with files in the two published formats: PyTorch tensors, and augreg's .npz."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.trunks import vit_small
from benchmark.trunks.vit_small import ViTSmall
from tests.cases import slow_except

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
HEADS, WIDTH = 6, 384


def some_state() -> dict[str, torch.Tensor]:
    """Return a state whose tensors all differ, with the names of DeiT's and DINO's files."""
    torch.manual_seed(5)
    state = {k.removeprefix("network."): v for k, v in ViTSmall().state_dict().items()}
    return {name: torch.randn(value.shape) / 20 for name, value in state.items()}


def as_augreg(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Convert a state to JAX's names and axes: kernels (in, out), attention (in, heads, out / heads)."""
    s = {name: value.numpy() for name, value in state.items()}
    arrays = {
        "embedding/kernel": s["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": s["patch_embed.proj.bias"],
        "cls": s["cls_token"],
        "Transformer/posembed_input/pos_embedding": s["pos_embed"],
        "Transformer/encoder_norm/scale": s["norm.weight"],
        "Transformer/encoder_norm/bias": s["norm.bias"],
        "head/kernel": np.zeros((WIDTH, 21843), np.float32),
        "head/bias": np.zeros(21843, np.float32),
    }
    for n in range(12):
        ours, theirs = f"blocks.{n}.", f"Transformer/encoderblock_{n}/"
        for i, part in enumerate(("query", "key", "value")):
            rows = slice(i * WIDTH, (i + 1) * WIDTH)
            name = f"{theirs}MultiHeadDotProductAttention_1/{part}/"
            kernel = s[f"{ours}attn.qkv.weight"][rows].T
            arrays[name + "kernel"] = kernel.reshape(WIDTH, HEADS, WIDTH // HEADS)
            arrays[name + "bias"] = s[f"{ours}attn.qkv.bias"][rows].reshape(HEADS, -1)
        out = s[f"{ours}attn.proj.weight"].T.reshape(HEADS, WIDTH // HEADS, WIDTH)
        arrays[f"{theirs}MultiHeadDotProductAttention_1/out/kernel"] = out
        arrays[f"{theirs}MultiHeadDotProductAttention_1/out/bias"] = s[f"{ours}attn.proj.bias"]
        for layer, norm in ((0, "norm1"), (2, "norm2")):
            arrays[f"{theirs}LayerNorm_{layer}/scale"] = s[f"{ours}{norm}.weight"]
            arrays[f"{theirs}LayerNorm_{layer}/bias"] = s[f"{ours}{norm}.bias"]
        for layer in (0, 1):
            arrays[f"{theirs}MlpBlock_3/Dense_{layer}/kernel"] = s[f"{ours}mlp.fc{layer + 1}.weight"].T
            arrays[f"{theirs}MlpBlock_3/Dense_{layer}/bias"] = s[f"{ours}mlp.fc{layer + 1}.bias"]
    return arrays


def assert_holds(trunk: ViTSmall, state: dict[str, torch.Tensor]) -> None:
    held = trunk.network.state_dict()
    assert list(held) == list(state) and all(torch.equal(held[name], value) for name, value in state.items())


@pytest.mark.slow
def test_both_published_layouts_fill_every_tensor(tmp_path: Path) -> None:
    state = some_state()
    classifier = {"head.weight": torch.zeros(1000, WIDTH), "head.bias": torch.zeros(1000)}
    torch.save({"model": state | classifier}, tmp_path / "deit.pth")
    np.savez(tmp_path / "augreg.npz", **as_augreg(state))
    for name in ("deit.pth", "augreg.npz"):
        assert_holds(ViTSmall(weights=str(tmp_path / name), **HALF), state)


def distilled_state() -> dict[str, torch.Tensor]:
    """Return a state with the names and shapes of DeiT's file with distillation, its two classifiers included."""
    torch.manual_seed(6)
    state = some_state()
    state |= {"dist_token": torch.randn(1, 1, WIDTH) / 20, "pos_embed": torch.randn(1, 198, WIDTH) / 20}
    for head in ("head", "head_dist"):
        state |= {f"{head}.weight": torch.zeros(1000, WIDTH), f"{head}.bias": torch.zeros(1000)}
    return state


@pytest.mark.slow
def test_deits_file_with_distillation_fills_every_tensor_and_the_feature_depends_on_the_mode(tmp_path: Path) -> None:
    """HIER's code, with timm 0.4.12: the class token in training, the mean of both tokens in evaluation."""
    state = distilled_state()
    torch.save({"model": state}, tmp_path / "deit.pth")
    file = str(tmp_path / "deit.pth")
    trunk = ViTSmall(weights=file, distilled=True, freeze_patches=True, **HALF)
    held = trunk.network.state_dict()
    assert set(held) == {name for name in state if not name.startswith("head")}
    assert all(torch.equal(held[name], state[name]) for name in held)
    frozen = [name for name, p in trunk.named_parameters() if not p.requires_grad]
    assert frozen == ["network.patch_embed.proj.weight", "network.patch_embed.proj.bias"]
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = trunk.network.forward_features(images)
        assert tokens.shape == (1, 198, WIDTH)
        assert torch.equal(trunk.train()(images), tokens[:, 0])
        torch.testing.assert_close(trunk.eval()(images), (tokens[:, 0] + tokens[:, 1]) / 2)
        trunk.tokens = "class"
        assert torch.equal(trunk(images), tokens[:, 0])
    with pytest.raises(UserError, match=r"deit\.pth does not fit VisionTransformer\. Tensors .*dist_token"):
        ViTSmall(weights=file, **HALF)


def test_a_distillation_token_is_there_exactly_for_the_weights_that_have_one() -> None:
    for weights, distilled in (("deit_distilled", False), ("deit", True)):
        with pytest.raises(UserError, match=f"weights={weights}, distilled={distilled}"):
            ViTSmall(weights=weights, distilled=distilled)
    with pytest.raises(UserError, match="tokens=both; allowed are class, mean, class_then_mean"):
        ViTSmall(distilled=True, tokens="both")  # type: ignore[arg-type]


def test_the_feature_is_the_class_token_after_the_last_norm() -> None:
    torch.manual_seed(0)
    trunk = ViTSmall().eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = trunk.network.forward_features(images)  # (B, 1 + 14 * 14, 384), the class token first
        assert tokens.shape == (1, 197, WIDTH) and torch.equal(trunk(images), tokens[:, 0])
    assert trunk.out_features == WIDTH


@pytest.mark.parametrize(
    ("weights", "mean"),
    [
        ("imagenet21k", 0.5),
        pytest.param("imagenet21k_1k", 0.5, marks=pytest.mark.slow),
        ("deit", 0.485),
        pytest.param("dino", 0.485, marks=pytest.mark.slow),
        pytest.param(None, 0.5, marks=pytest.mark.slow),
    ],
)
def test_each_set_of_weights_brings_the_mean_it_was_trained_with(
    weights: str | None, mean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "benchmark.trunks.weights.find", lambda name, published: asked.append(name) or Path("there.pth")
    )
    monkeypatch.setattr("benchmark.trunks.weights.read", lambda path: {})
    monkeypatch.setattr("benchmark.trunks.weights.fill", lambda *_, **__: None)
    trunk = ViTSmall(weights=weights)
    assert trunk.mean[0] == mean and asked == ([weights] if weights else [])


def test_your_own_file_needs_its_mean_and_standard_deviation() -> None:
    with pytest.raises(UserError, match=r"weights=mine\.pth, mean=None.*say which mean and std"):
        ViTSmall(weights="mine.pth")


@pytest.mark.slow
def test_other_sizes_are_refused_unless_positions_may_be_interpolated() -> None:
    with pytest.raises(UserError, match="images of 96 x 224 pixels; allowed: 224 x 224"):
        ViTSmall()(torch.zeros(1, 3, 96, 224))
    trunk = ViTSmall(any_size=True).eval()
    with torch.no_grad():
        assert trunk(torch.zeros(1, 3, 96, 64)).shape == (1, WIDTH)
    with pytest.raises(UserError, match="images of 97 x 64 pixels; allowed: sides that are multiples of 16"):
        trunk(torch.zeros(1, 3, 97, 64))


def test_an_npz_file_that_holds_pickles_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "hostile.npz", **{"embedding/kernel": np.array([print], dtype=object)})
    with pytest.raises(UserError, match=r"hostile\.npz does not fit vit_small \(.*allow_pickle=False"):
        ViTSmall(weights=str(tmp_path / "hostile.npz"), **HALF)


@pytest.mark.parametrize(
    "content", slow_except([b"PK\x03\x04 cut off"], [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
)
def test_a_damaged_npz_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cut.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cut\.npz does not fit vit_small"):
        ViTSmall(weights=str(tmp_path / "cut.npz"), **HALF)


def test_an_npz_file_with_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    np.savez(path, **{"embedding/kernel": np.zeros((16, 16, 3, WIDTH), np.float32)})
    path.write_bytes(path.read_bytes().replace(b"'fortran_order'", b"(fortran_order'"))
    with pytest.raises(UserError, match=r"cut\.npz does not fit vit_small"):
        ViTSmall(weights=str(path), **HALF)


NPZ = {
    "an unknown array": {"embedding/weight": np.ones(3, np.float32)},
    "another shape": {"embedding/bias": np.ones(1, np.float32)},
    "other positions": {"Transformer/posembed_input/pos_embedding": np.ones((1, 50, WIDTH), np.float32)},
    "double precision": {"cls": np.ones((1, 1, WIDTH))},
    "half precision": {"cls": np.ones((1, 1, WIDTH), np.float16)},
    "integers": {"cls": np.ones((1, 1, WIDTH), np.int32)},
    "complex": {"cls": np.ones((1, 1, WIDTH), np.complex64)},
    "texts": {"cls": np.array(["a"])},
    "not a number": {"cls": np.full((1, 1, WIDTH), np.nan, np.float32)},
    "infinity": {"cls": np.full((1, 1, WIDTH), np.inf, np.float32)},
    "nothing": {},
}


@pytest.mark.parametrize("arrays", NPZ.values(), ids=NPZ)
def test_an_npz_file_with_other_arrays_is_refused_before_timm_resizes_or_repeats_them(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    np.savez(tmp_path / "net.npz", **arrays)
    with pytest.raises(UserError, match=rf"net\.npz does not fit vit_small \(.*{next(iter(arrays), 'missing')}"):
        vit_small._check_npz(tmp_path / "net.npz")


def test_an_npz_file_that_holds_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit_small, "NPZ_BYTES", 1000)
    np.savez_compressed(tmp_path / "net.npz", cls=np.zeros((1, 1, WIDTH), np.float32))
    with pytest.raises(UserError, match="holds more than 1,000 bytes"):
        vit_small._check_npz(tmp_path / "net.npz")
