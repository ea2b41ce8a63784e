"""What follows from a training's history."""

from benchmark.training.history import convergence_epoch


def rows(*scores: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "map_at_r": score} for epoch, score in enumerate(scores)]


def test_a_training_has_converged_at_the_first_trained_epoch_within_a_hundredth_of_the_best() -> None:
    assert convergence_epoch(rows(0.9, 0.5, 0.6929, 0.6931, 0.7, 0.6)) == 3  # 0.99 * 0.7 = 0.693; epoch 0 is untrained
    assert convergence_epoch(rows(0.9, 0.5, 0.6, 0.7), within=0.2) == 2  # 0.56
    assert convergence_epoch(rows(0.1, 0.0, 0.0)) == 1 and convergence_epoch(rows(0.1)) is None


def test_the_scores_on_the_monitored_images_can_count_instead() -> None:
    history = [{"epoch": epoch, "watched": {"precision_at_1": score}} for epoch, score in enumerate((0.1, 0.2, 0.4))]
    assert convergence_epoch(history, "precision_at_1", monitored=True) == 2
    assert convergence_epoch(history, "precision_at_1") is None
