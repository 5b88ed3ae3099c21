"""Plots of two axes, by hand."""

from luthier.pages import maps
from reading import drawings


def test_a_map_by_hand() -> None:
    """Two labels of one letter, 13 units for their names; cells are at most 30 units."""
    (heat,) = drawings(maps.heat(["a", "b"], [[3, 1], [0, 0]], ["a", "b"], "title"))
    cells = [r for r in heat.iter("{http://www.w3.org/2000/svg}rect") if r.get("class") != "ground"]
    assert [(r.get("class"), r.get("x"), r.get("y"), r.get("fill-opacity")) for r in cells] == [
        ("right", "13.0", "13.0", "0.78"),
        ("wrong", "43.0", "13.0", "0.34"),
    ]
    assert heat.get("viewBox") == "0 0 400 73"


def test_a_learning_curve_by_hand() -> None:
    """From 60 to 376 units for 100 to 400 rows, so 200 rows are in the middle; heights from 190 to 22."""
    points = [
        maps.Learnt(100, 0.5, 0.5, 0.7),
        maps.Learnt(200, 0.9, None, None),
        maps.Learnt(400, 1.0, 0.9, 1.0, True),
    ]
    (drawn,) = drawings(maps.learning(points, None, "title", "accuracy"))
    dots = [
        (c.get("class"), c.get("cx"), c.get("cy")) for c in drawn.iter("{http://www.w3.org/2000/svg}circle")
    ]
    assert dots == [("after", "60.0", "190.0"), ("after", "218.0", "55.6"), ("guess", "376.0", "22.0")]


def test_a_reliability_plot_by_hand() -> None:
    (drawn,) = drawings(
        maps.reliability({"after": [maps.Bin(0.5, 0.2, 9)]}, "title", "confidence", "accuracy")
    )
    (dot,) = drawn.iter("{http://www.w3.org/2000/svg}circle")
    assert (dot.get("cx"), dot.get("cy"), dot.get("r")) == ("183.0", "208.0", "8")
