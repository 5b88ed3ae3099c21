"""Small plots of a table's rows."""

import pytest

from luthier.pages import spans
from reading import drawings

SVG = "{http://www.w3.org/2000/svg}"


def test_a_scale_holds_all_values() -> None:
    assert spans.scale([0.2, None, 0.9]) == (0.2, 0.9)
    assert spans.scale([0.2, 0.9], zero=True) == (0.0, 0.9)
    assert spans.scale([0.0, 0.0]) == (-0.01, 0.01)
    assert spans.scale([]) == (-0.01, 0.01)


def test_a_move_by_hand() -> None:
    """118 units between margins of 7."""
    (drawn,) = drawings(spans.moved(0.0, 0.5, (0.0, 1.0), "0 → 0.5"))
    dots = [(c.get("class"), c.get("cx")) for c in drawn.iter(f"{SVG}circle")]
    assert dots == [("before", "7.0"), ("after", "66.0")]
    (alone,) = drawings(spans.moved(None, 1.0, (0.0, 1.0), "1"))
    assert [(c.get("class"), c.get("cx")) for c in alone.iter(f"{SVG}circle")] == [("after", "125.0")]


def test_an_interval_by_hand() -> None:
    (drawn,) = drawings(spans.span(0.5, (0.25, 0.75), (-1.0, 1.0), "better", "+0.5"))
    lines = [(one.get("class"), one.get("x1"), one.get("x2")) for one in drawn.iter(f"{SVG}line")]
    assert lines == [
        ("zero", "66.0", "66.0"),
        ("span better", "80.8", "110.2"),
        ("span better", "80.8", "80.8"),
        ("span better", "110.2", "110.2"),
    ]
    (dot,) = drawn.iter(f"{SVG}circle")
    assert (dot.get("class"), dot.get("cx")) == ("point better", "95.5")


def test_without_an_interval_only_the_point_is_drawn() -> None:
    (drawn,) = drawings(spans.span(0.5, (None, None), (0.0, 1.0), None, "0.5"))
    assert [one.get("class") for one in drawn.iter(f"{SVG}line")] == []
    assert [one.get("class") for one in drawn.iter(f"{SVG}circle")] == ["point"]


@pytest.mark.parametrize(
    ("along", "sign", "told"),
    [
        ((0.0, 1.0), False, ["0", "50", "100"]),
        ((-1.0, 1.0), True, ["0", "−100", "+50"]),
        ((-0.02, 0.03), True, ["0", "−2", "+2"]),
    ],
)
def test_an_axis_names_zero_first_and_nothing_over_another(
    along: spans.Scale, sign: bool, told: list[str]
) -> None:
    (drawn,) = drawings(spans.axis(along, "axis", factor=100, sign=sign))
    assert [text.text for text in drawn.iter(f"{SVG}text")] == told
