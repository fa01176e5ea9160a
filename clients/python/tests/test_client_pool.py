"""Which connection a call takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from annserve_client.pool import AVOID_FACTOR, AVOID_SECONDS, AVOID_SECONDS_MAX, Connection, Pool


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool_of(clock: Clock) -> Callable[[int], Pool[int]]:
    return lambda count: Pool([Connection(channel=number, methods={}) for number in range(count)], clock)


PoolOf = Callable[[int], Pool[int]]


def test_idle_connections_take_turns(pool_of: PoolOf) -> None:
    pool = pool_of(3)

    taken = []
    for _ in range(6):
        connection = pool.take()
        taken.append(connection.channel)
        pool.give_back(connection, lapsed=False)

    assert sorted(taken[:3]) == sorted(taken[3:]) == [0, 1, 2]


def test_connection_with_the_fewest_calls_under_way_is_taken(pool_of: PoolOf) -> None:
    pool = pool_of(3)
    held = [pool.take() for _ in range(3)]
    pool.give_back(held[1], lapsed=False)

    assert pool.take() is held[1]


def test_second_attempt_goes_where_an_answer_came_from_last(pool_of: PoolOf, clock: Clock) -> None:
    pool = pool_of(3)
    connections = [pool.take() for _ in range(3)]
    for connection in connections:
        clock.now += 1.0
        pool.give_back(connection, lapsed=False)

    assert pool.take_another(connections[2]) is connections[1]
    assert pool.take_another(connections[0]) is connections[2]
    assert [connection.call_count for connection in connections] == [0, 1, 1]


def test_connection_that_let_calls_down_is_left_alone_for_longer_each_time(pool_of: PoolOf, clock: Clock) -> None:
    pool = pool_of(2)
    bad, good = pool.connections
    waits = []
    for _ in range(10):
        begun = clock.now
        while (taken := pool.take()) is not bad:
            pool.give_back(taken, lapsed=False)
            clock.now += AVOID_SECONDS / 10
        waits.append(clock.now - begun)
        pool.give_back(bad, lapsed=True)

    expected = [0.0, *(min(AVOID_SECONDS * AVOID_FACTOR**number, AVOID_SECONDS_MAX) for number in range(9))]
    assert waits == pytest.approx(expected, abs=AVOID_SECONDS / 3)
    assert good.call_count == bad.call_count == 0


def test_connection_that_is_well_again_counts_as_any_other(pool_of: PoolOf) -> None:
    pool = pool_of(2)
    bad, _ = pool.connections
    for lapsed in (True, True, False):
        bad.call_count += 1
        pool.give_back(bad, lapsed=lapsed)

    assert {pool.take().channel for _ in range(2)} == {0, 1}
    assert bad.lapse_count == 0


def test_call_is_made_even_where_every_connection_is_avoided(pool_of: PoolOf) -> None:
    pool = pool_of(2)
    for _ in range(4):
        pool.give_back(pool.take(), lapsed=True)

    assert pool.take() in pool.connections
