"""The short form of every fault experiment; `make faults` runs the long one."""

import pytest

from faults.bench import Bench, Unavailable
from faults.run import find
from faults.table import EXPERIMENTS


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    try:
        made = Bench(tmp_path_factory.mktemp("faults"))
    except Unavailable as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_short_form(name, bench):
    try:
        trials = list(find(name)(bench, EXPERIMENTS[name][1]))
    except Unavailable as error:
        pytest.skip(str(error))
    assert len(trials) >= EXPERIMENTS[name][1]
    assert [f"{trial.what}: {trial.problem}" for trial in trials if trial.problem] == []
