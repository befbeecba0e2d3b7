"""Prompts go where their beginning was computed, and new ones where there is least to do."""

from __future__ import annotations

import itertools
import random

import pytest
from tests.engine.local.requests import random_ids

from journeyman.engine.local.dispatch import Router

SYSTEM = random_ids("system", 50)


def prompt(group: int) -> tuple[int, ...]:
    return (*SYSTEM, *random_ids(group, 10))


@pytest.mark.parametrize("order", ["group by group", "attempt by attempt", "shuffled"])
@pytest.mark.parametrize("num_places", [2, 3])
def test_six_groups_at_once_are_spread_evenly_and_stay_together(order: str, num_places: int) -> None:
    groups = [group for group in range(6) for _ in range(6)]
    if order == "attempt by attempt":
        groups = list(range(6)) * 6
    elif order == "shuffled":
        random.Random(1).shuffle(groups)
    router = Router(num_places, max_lead=16)
    loads = [0] * num_places
    places: dict[int, set[int]] = {}
    for group in groups:
        place = router.place(prompt(group), loads)
        loads[place] += 1
        places.setdefault(group, set()).add(place)
    assert all(len(found) == 1 for found in places.values())
    assert max(loads) - min(loads) <= 12
    if order != "shuffled":
        assert max(loads) == min(loads) == 36 // num_places


def test_groups_that_come_one_after_the_other_alternate() -> None:
    router = Router(2, max_lead=16)
    assert [router.place(prompt(group), [0, 0]) for group in range(4)] == [0, 1, 0, 1]


def test_the_next_turn_goes_where_its_own_last_turn_is_kept() -> None:
    router = Router(2, max_lead=4)
    first, second = (1, 2, 3, 7, 7), (1, 2, 3, 8, 8)
    assert router.place((1, 2, 3), [0, 0]) == 0
    router.remember(first, 0)
    assert router.place((1, 2, 3), [4, 0]) == 1  # the group is split: its first place has too much to do
    router.remember(second, 1)
    assert router.place((*first, 9), [0, 0]) == 0
    assert router.place((*second, 9), [0, 0]) == 1


def test_a_place_with_far_more_to_do_gets_no_more() -> None:
    router = Router(2, max_lead=16)
    loads = [0, 0]
    for _ in range(40):
        loads[router.place(prompt(0), loads)] += 1
    assert sorted(loads) == [16, 24]


def test_what_was_forgotten_is_new_again() -> None:
    router = Router(2, max_lead=16)
    assert router.place(prompt(0), [0, 0]) == 0
    assert router.place(prompt(0), [1, 0]) == 0
    router.forget()
    assert router.place(prompt(0), [1, 0]) == 1


def test_old_prompts_are_forgotten_before_new_ones() -> None:
    router = Router(2, max_lead=16)
    assert router.place((1, 2), [0, 0]) == 0
    for number in itertools.islice(itertools.count(10), 1024):
        router.remember((number,), 0)
    assert router.place((1, 2), [1, 0]) == 1
