"""Agreement of two judgements, held against scikit-learn."""

import numpy as np
import pytest

from luthier.measure import agreement


def test_kappa_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    for _ in range(20):
        first, second = (draw.choice(["after", "before", "tie"], 50).tolist() for _ in range(2))
        assert agreement.kappa(first, second) == pytest.approx(
            metrics.cohen_kappa_score(first, second), abs=1e-12
        )
    assert agreement.kappa([], []) is agreement.kappa(["tie"], ["tie"]) is None
