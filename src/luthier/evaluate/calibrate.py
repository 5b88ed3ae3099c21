"""How honest a model's probabilities of labels are: the bins of the reliability plot.

Of rows answered with a confidence of 80 %, 80 % should be right. Who sends unsure answers to a person needs
that to hold; accuracy alone does not show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from luthier.evaluate import report
from luthier.measure.metrics.labels import reliability

if TYPE_CHECKING:
    from luthier.evaluate.results import Heard


def calibration(heard: Heard) -> dict[str, Any]:
    """`calibration`: {side: {"ece", "bins": [{"low", "high", "confidence", "accuracy", "n"}]}}.

    Nothing where labels were not scored by likelihood.
    """
    scored = {side: ways["likelihood"] for side, ways in heard.said.items() if "likelihood" in ways}
    found = {
        side: {
            "ece": report.finite(heard.measured[side]["likelihood"]["ece"].value),
            "bins": [
                {"n" if name == "count" else name: value for name, value in one.items()}
                for one in reliability(answered)
            ],
        }
        for side, answered in scored.items()
    }
    return {"calibration": found} if found else {}
