"""How options of the command line are read."""

import pytest

from dropzoo.cli import options


@pytest.mark.parametrize(
    ("values", "plan"),
    [
        (None, None),
        (["0.3"], 0.3),
        (["paper"], "paper"),
        (["a*=0.5", "b=spatial_dropout2d:0.2"], {"a*": 0.5, "b": "spatial_dropout2d:0.2"}),
        (["a=drop_block2d:0.1,block_size=5", "b=none"], {"a": "drop_block2d:0.1,block_size=5", "b": None}),
    ],
)
def test_parse_dropout(values, plan):
    assert options.parse_dropout(values) == plan


@pytest.mark.parametrize(
    ("values", "schedules"),
    [
        (None, None),
        (["0.3"], {"*": 0.3}),
        (["late:0.5,start=0.6"], {"*": "late:0.5,start=0.6"}),
        (
            ["decoder*=linear:0.0,0.3", "head=late:0.5,start=0.6", "skip1=none"],
            {"decoder*": "linear:0.0,0.3", "head": "late:0.5,start=0.6", "skip1": None},
        ),
    ],
)
def test_parse_rate_schedule(values, schedules):
    assert options.parse_rate_schedule(values) == schedules


@pytest.mark.parametrize(
    ("value", "augment"),
    [(None, False), ("", False), ("none", False), ("yes", True), ("rotation=15", "rotation=15")],
)
def test_parse_augment(value, augment):
    assert options.parse_augment(value) == augment
