"""Equations of proxy losses and of terms that are added to losses, in plain Python loops over floats."""

import math


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def potential(distance, same, *, alpha, delta, core=0.01):
    """Eq. 1 and 2 of PFML; the repulsion within `core` is its tangent in the squared distance."""
    if same:
        return -(delta**-alpha) if distance < delta else -(distance**-alpha)
    if distance >= delta:
        return delta**-alpha
    if distance >= core:
        return distance**-alpha
    return core**-alpha + alpha / 2 * core ** (-alpha - 2) * (core**2 - distance**2)


def potential_field_by_loops(embeddings, labels, proxies, *, alpha, delta, core=0.01):
    """The total energy, Eq. 6, of every point in the field of its class: counted from 1/delta^alpha, in units of it."""
    rows = proxies.tolist() if proxies.dim() == 3 else [[row] for row in proxies.tolist()]
    points = [(unit(e), y) for e, y in zip(embeddings.tolist(), labels.tolist(), strict=True)]
    points += [(unit(row), y) for y, centres in enumerate(rows) for row in centres]
    energy = 0.0
    for i, (point, label) in enumerate(points):
        for j, (other, its_label) in enumerate(points):
            if i != j:
                distance = math.dist(point, other)
                found = potential(distance, label == its_label, alpha=alpha, delta=delta, core=core)
                energy += found * delta**alpha - (label != its_label)
    return energy / len(labels)


def center_contrastive_by_loops(embeddings, labels, proxies, *, scale, margin, center_weight):
    """Eq. 5 of the Center Contrastive Loss plus 2 lambda, which makes a squared distance of its last part."""
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        similar = [dot(unit(embedding), unit(row)) for row in proxies.tolist()]
        own = math.exp(scale * (similar[label] - margin))
        others = sum(math.exp(scale * s) for j, s in enumerate(similar) if j != label)
        total -= math.log(own * math.exp(2 * center_weight * similar[label]) / (own + others))
    return total / len(labels) + 2 * center_weight


def circle_class_by_loops(embeddings, labels, proxies, *, gamma, margin):
    """Eq. 6 of the Circle loss with one positive, the class's own vector."""
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        similar = [dot(unit(embedding), unit(row)) for row in proxies.tolist()]
        own = similar[label]
        pull = math.exp(-gamma * max(0, 1 + margin - own) * (own - (1 - margin)))
        rest = [math.exp(gamma * max(0, s + margin) * (s - margin)) for j, s in enumerate(similar) if j != label]
        total += math.log(1 + sum(rest) * pull)
    return total / len(labels)


def threshold_margin_by_loops(embeddings, labels, *, pos_margin, neg_margin, pos_weight, neg_weight):
    rows = [(unit(e), y) for e, y in zip(embeddings.tolist(), labels.tolist(), strict=True)]
    pulls, pushes = [], []
    for i, (a, its_label) in enumerate(rows):
        for j, (b, label) in enumerate(rows):
            cosine = dot(a, b)
            if i != j and label == its_label and cosine <= pos_margin:
                pulls.append(pos_margin - cosine)
            if label != its_label and cosine >= neg_margin:
                pushes.append(cosine - neg_margin)
    pull, push = (sum(found) / len(found) if found else 0.0 for found in (pulls, pushes))
    return pos_weight * pull + neg_weight * push


def log_determinant(matrix):
    """By Gaussian elimination, for a matrix whose determinant is above 0."""
    rows, total = [list(row) for row in matrix], 0.0
    for k in range(len(rows)):
        total += math.log(rows[k][k])
        for row in rows[k + 1 :]:
            factor = row[k] / rows[k][k]
            row[:] = [x - factor * y for x, y in zip(row, rows[k], strict=True)]
    return total


def coding_rate_by_loops(vectors, scale):
    """1/2 log det(I_D + c sum_i v_i v_i^T) for a list of vectors."""
    rows = [unit(vector) for vector in vectors]
    size = range(len(rows[0]))
    matrix = [[(a == b) + scale * sum(row[a] * row[b] for row in rows) for b in size] for a in size]
    return log_determinant(matrix) / 2
