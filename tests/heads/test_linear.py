"""The linear head, compared with numpy."""

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.heads.linear import Linear


def numpy_linear(head: Linear, features: torch.Tensor) -> np.ndarray:
    weight, bias = (head.state_dict()[f"linear.{name}"].numpy().astype(np.float64) for name in ("weight", "bias"))
    return features.numpy().astype(np.float64) @ weight.T + bias


def test_an_embedding_is_the_matrix_product_plus_the_bias() -> None:
    torch.manual_seed(0)
    head, features = Linear(7, 5), torch.randn(4, 7)
    assert head.out_features == 5
    np.testing.assert_allclose(head(features).detach().numpy(), numpy_linear(head, features), rtol=1e-5, atol=1e-6)


def test_the_default_dimension_is_128_and_embeddings_are_not_normalised() -> None:
    torch.manual_seed(0)
    head = Linear(16)
    embeddings = head(torch.randn(3, 16))
    assert embeddings.shape == (3, 128) and head.out_features == 128
    assert not torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=0.1)


def standardised(row: np.ndarray) -> list[float]:
    """(v - mean) / sqrt(variance + 1e-5) in loops, with the population variance of the row."""
    mean = sum(row) / len(row)
    variance = sum((value - mean) ** 2 for value in row) / len(row)
    return [(value - mean) / (variance + 1e-5) ** 0.5 for value in row]


def test_layer_norm_shifts_and_scales_each_embedding_and_learns_nothing() -> None:
    torch.manual_seed(0)
    head, features = Linear(7, 5, layer_norm=True), torch.randn(4, 7)
    expected = [standardised(row) for row in numpy_linear(head, features)]
    np.testing.assert_allclose(head(features).detach().numpy(), expected, atol=1e-5)
    assert {name for name, _ in head.named_parameters()} == {"linear.weight", "linear.bias"}


def test_normalize_features_shifts_and_scales_before_the_linear_map_and_learns_nothing() -> None:
    torch.manual_seed(0)
    head, features = Linear(7, 5, normalize_features=True), 3 * torch.randn(4, 7) + 2
    prepared = torch.tensor([standardised(row) for row in features.double().numpy()])
    np.testing.assert_allclose(head(features).detach().numpy(), numpy_linear(head, prepared), atol=1e-5)
    assert set(head.state_dict()) == {"linear.weight", "linear.bias"}


def test_with_both_norms_neither_length_nor_offset_of_the_features_matters() -> None:
    torch.manual_seed(0)
    head, features = Linear(7, 5, layer_norm=True, normalize_features=True), torch.randn(4, 7)
    prepared = torch.tensor([standardised(row) for row in features.double().numpy()])
    expected = [standardised(row) for row in numpy_linear(head, prepared)]
    np.testing.assert_allclose(head(features).detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(head(10 * features + 3).detach().numpy(), expected, atol=1e-4)


def test_weights_stay_within_pytorchs_default_bound() -> None:
    # Uniform in +-1 / sqrt(F): with F = 100 the bound is 0.1, and 5,000 draws come close to it.
    torch.manual_seed(0)
    weight = Linear(100, 50).linear.weight.detach()
    assert 0.099 < float(weight.abs().max()) <= 0.1 and abs(float(weight.mean())) < 0.005


def test_kaiming_fan_out_draws_the_numbers_of_torch() -> None:
    torch.manual_seed(0)
    head = Linear(7, 5, init="kaiming_fan_out")
    torch.manual_seed(0)
    expected = torch.nn.Linear(7, 5)
    torch.nn.init.kaiming_normal_(expected.weight, mode="fan_out")
    assert torch.equal(head.linear.weight, expected.weight)
    assert torch.equal(head.linear.bias, torch.zeros(5))


def test_kaiming_fan_out_has_variance_two_over_the_embedding_length() -> None:
    # D = 50: the standard deviation is sqrt(2 / 50) = 0.2, and that of 100,000 draws is within 1 % of it.
    torch.manual_seed(0)
    weight = Linear(2000, 50, init="kaiming_fan_out").linear.weight.detach()
    assert float(weight.std()) == pytest.approx(0.2, rel=0.01) and float(weight.abs().max()) > 0.7


def test_weight_and_bias_are_initialised_as_in_torch_by_default() -> None:
    torch.manual_seed(0)
    heads = [Linear(7, 5), Linear(7, 5, init="default")]
    torch.manual_seed(0)
    for head in heads:
        expected = torch.nn.Linear(7, 5)
        assert torch.equal(head.linear.weight, expected.weight) and torch.equal(head.linear.bias, expected.bias)


def test_an_unknown_init_is_named() -> None:
    with pytest.raises(UserError, match="init=zeros; allowed are default and kaiming_fan_out"):
        Linear(5, 5, init="zeros")  # type: ignore[arg-type]


@pytest.mark.parametrize("embedding_dim", [64, 128, 512, 1024])
def test_common_dimensions_work(embedding_dim: int) -> None:
    assert Linear(16, embedding_dim, layer_norm=True)(torch.randn(2, 16)).shape == (2, embedding_dim)


@pytest.mark.parametrize(
    ("arguments", "named"), [((0, 5), "in_features=0"), ((5, 0), "embedding_dim=0"), ((5, -1), "embedding_dim=-1")]
)
def test_a_dimension_below_one_is_named(arguments: tuple[int, int], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Linear(*arguments)


def test_layer_norm_of_a_single_dimension_is_refused() -> None:
    with pytest.raises(UserError, match="every embedding would be 0"):
        Linear(5, 1, layer_norm=True)


def test_normalised_features_of_a_single_dimension_are_refused() -> None:
    with pytest.raises(UserError, match="every feature would be 0"):
        Linear(1, 5, normalize_features=True)
