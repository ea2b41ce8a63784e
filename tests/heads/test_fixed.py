"""Heads without training: the features themselves, and their principal components, compared with numpy."""

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.heads import HasFit
from benchmark.heads.fixed import Features, PrincipalComponents


def test_features_pass_unchanged_and_keep_their_dimension() -> None:
    head, features = Features(7, 3), torch.randn(4, 7)
    assert head.out_features == 7 and torch.equal(head(features), features) and not isinstance(head, HasFit)


def test_principal_components_are_those_of_numpy_s_singular_value_decomposition() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 6)) * [5, 1, 4, 2, 3, 0.5] + 10
    head = PrincipalComponents(6, 3)
    assert isinstance(head, HasFit)
    head.fit(torch.from_numpy(points).float())
    centred = points - points.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:3]
    components *= np.sign(np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1))
    found = head(torch.from_numpy(points).float()).numpy()
    np.testing.assert_allclose(found, centred @ components.T, rtol=1e-4, atol=1e-4)


def test_the_fit_is_part_of_the_weights() -> None:
    head, twin = PrincipalComponents(4, 2), PrincipalComponents(4, 2)
    features = torch.randn(9, 4)
    head.fit(features)
    twin.load_state_dict(head.state_dict())
    assert torch.equal(head(features), twin(features))


@pytest.mark.parametrize("dim", [0, 5])
def test_more_components_than_features_are_refused(dim: int) -> None:
    with pytest.raises(UserError, match=r"allowed are 1 to 4 \(protocol.embedding_dim\)"):
        PrincipalComponents(4, dim)


def test_more_components_than_images_are_refused() -> None:
    with pytest.raises(UserError, match="3 principal components of 2 training images"):
        PrincipalComponents(4, 3).fit(torch.randn(2, 4))
