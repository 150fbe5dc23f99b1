"""How many items share a pass, and what a pass takes: sums that are done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hand_built import ITEM, MIB, card, component, cpu, requirements

from runner.placements import RESIDENT, STREAM, ComponentPlacement
from runner.plan.component_placement import whole
from runner.plan.throughput import MAX_GROUP, PassTime, group_size, pass_time_of

ROOM = 1000 * 6 * MIB  # for as many as there may be


def size(room: int = ROOM, *, dtype: str = "float32", items: int = 1000, **item: int | None) -> int:
    return group_size(requirements(item=replace(ITEM, **item), items=items, dtype=dtype), cpu(None), room)  # type: ignore[arg-type]


def test_tokens_in_flight_hide_the_transfer() -> None:
    # 2 cores of 1e12 operations, 1e9 bytes a second: 2000 operations a byte, 4 bytes a weight, 2 a token
    assert size(tokens=500) == 8
    assert size(tokens=300) == 14  # 13.3
    assert size(tokens=500, dtype="bfloat16") == 4  # half the bytes
    assert size(tokens=250, dtype="bfloat16") == 8


def test_a_group_is_not_too_small_for_an_estimate() -> None:
    assert size(tokens=4000) == 4
    assert size(tokens=10**9) == 4


def test_where_a_pass_or_two_is_all_everybody_shares_it() -> None:
    assert size(passes=1) == size(passes=2) == MAX_GROUP == 256
    assert size(passes=3) == 4
    assert size(passes=0) == 4  # unknown
    assert size(passes=2, items=9) == 9


def test_without_tokens_all_share() -> None:
    assert size(tokens=0) == MAX_GROUP


def test_room_is_for_those_that_wait() -> None:
    """The one that computes is counted with the activations."""
    assert size(0, tokens=100) == 1
    assert size(6 * MIB - 1, tokens=100) == 1
    assert size(6 * MIB, tokens=100) == 2
    assert size(20 * MIB, tokens=100) == 4  # 1 + 3
    assert size(-MIB, tokens=100) == 1
    # who does not say what a waiting item holds, holds all
    assert size(100 * MIB, tokens=100, suspended=None) == 3  # 1 + 2
    assert size(0, tokens=100, suspended=0) == 40


def test_no_more_than_there_are() -> None:
    assert size(tokens=100, items=3) == 3
    assert size(tokens=1) == MAX_GROUP


def test_the_time_of_a_pass() -> None:
    net = component()  # 44 MiB in float32, 11 Mi parameters
    placed = whole(net, "float32", ComponentPlacement(STREAM), stays=False)
    placed = replace(placed, read=10 * MIB)
    pass_time = pass_time_of([placed, placed], 3, requirements(net), card(None, None))
    assert pass_time.disk == pytest.approx(20 * MIB / 1e9)
    assert pass_time.bus == pytest.approx(88 * MIB / 1e10)
    assert pass_time.compute == pytest.approx(2 * 11 * MIB * 1000 * 3 / 2e12)
    assert pass_time_of([placed], 3, requirements(net), cpu(None)).bus == 0.0
    assert (
        pass_time_of([placed], 1, requirements(net, item=replace(ITEM, tokens=0)), cpu(None)).compute is None
    )
    stays = whole(net, "float32", ComponentPlacement(RESIDENT), stays=True)
    assert pass_time_of([stays], 1, requirements(net), card(None, None)).bus == 0.0


def test_what_bounds_a_pass() -> None:
    assert PassTime(3.0, 1.0, 2.0).bound == "disk"
    assert PassTime(1.0, 3.0, 2.0).bound == "bus"
    assert PassTime(1.0, 2.0, 3.0).bound == "compute"
    assert PassTime(1.0, 0.0, None).bound == "disk"
