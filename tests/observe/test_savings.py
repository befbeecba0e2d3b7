"""The saving of a run is over all its tokens, not the mean of its steps."""

from __future__ import annotations

from journeyman.observe.savings import packing_saving


def test_the_saving_is_over_all_tokens() -> None:
    steps = [(300.0, 100.0), (100.0, 100.0)]
    history = [{"train/num_unpacked_tokens": unpacked, "train/num_computed_tokens": computed} for unpacked, computed in steps]
    assert packing_saving([*history, {"train/loss": 0.1}]) == 2.0


def test_a_run_that_trained_nothing_saved_nothing() -> None:
    assert packing_saving([{"train/loss": 0.0}]) is None
