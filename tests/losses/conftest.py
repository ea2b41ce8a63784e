"""Oracles: the losses' equations in plain Python loops over floats, without code of the package."""

import math

import pytest
import torch


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


@pytest.fixture
def nca_by_loops():
    def loss(embeddings, labels, proxies, *, scale, denominator="all"):
        total = 0.0
        for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
            similar = [cosine(embedding, proxy) for proxy in proxies.tolist()]
            rivals = [s for j, s in enumerate(similar) if denominator == "all" or j != label]
            total += math.log(sum(math.exp(scale * (s - similar[label])) for s in rivals))
        return total / len(labels)

    return loss


@pytest.fixture
def anchor_by_loops():
    def loss(embeddings, labels, proxies, *, alpha, margin):
        pulls, pushes = [], []
        for j, proxy in enumerate(proxies.tolist()):
            similar = [cosine(embedding, proxy) for embedding in embeddings.tolist()]
            own = [s for s, label in zip(similar, labels.tolist(), strict=True) if label == j]
            rest = [s for s, label in zip(similar, labels.tolist(), strict=True) if label != j]
            if own:
                pulls.append(math.log(1 + sum(math.exp(-alpha * (s - margin)) for s in own)))
            pushes.append(math.log(1 + sum(math.exp(alpha * (s + margin)) for s in rest)))
        return sum(pulls) / len(pulls) + sum(pushes) / len(pushes)

    return loss


@pytest.fixture
def batch():
    """Float64 embeddings (9, 5) of any norm, labels of 7 classes, two of them absent, and proxies (7, 5)."""
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(9, 5, generator=generator, dtype=torch.float64) * torch.arange(1, 10)[:, None]
    proxies = torch.randn(7, 5, generator=generator, dtype=torch.float64) * 3
    return embeddings, torch.tensor([0, 0, 1, 3, 3, 3, 4, 6, 6]), proxies
