"""Wrong training labels, to measure how much a loss suffers from them.

Source: symmetric noise, the usual model of random mistakes: an image has a wrong label with a given probability, and
each other class is then equally likely. Liu et al., "Noise-resistant Deep Metric Learning with Ranking-based Instance
Selection", CVPR 2021 (arXiv 2103.16047), relabel images this way (their list datalist/CUB_0.5noised_train.csv, commit
138aa73 of alibaba-edu/Ranking-based-Instance-Selection: about half of the images of a class, with labels of all
classes). Berton, Musgrave and Masone, "All You Need to Know About Training Image Retrieval Models", 2025 (arXiv
2503.13045), change labels at random, too; their code (gmberton/image-retrieval, commit c143d75) does not include it.

Departure: the number of wrong labels is fixed, not binomial, so that the share is the same in each fold and run.

Easily got wrong: a "new" label that may be the old one, which lowers the share by 1 / C.
"""

import numpy as np


def with_symmetric_noise(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Labels (N,) of which round(share * N) are wrong: images drawn at random, each with a random other class.

    With one seed, the wrong labels of a smaller share are among those of a larger one.

    >>> with_symmetric_noise(np.array([0, 0, 1, 1]), 0.5, seed=0).tolist()
    [1, 0, 0, 1]

    Args:
        labels: (N,) int64 in 0..C-1, of at least two classes.
        share: fraction of the labels that become wrong, in [0, 1).
        seed: determines the images and their classes.
    """
    num_classes, rng = int(labels.max()) + 1, np.random.default_rng(seed)
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + rng.integers(1, num_classes, len(chosen))) % num_classes
    return noisy
