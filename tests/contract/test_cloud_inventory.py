"""Snapshots of listings: shared, bounded in age, never older than a write."""

import asyncio

import pytest
from hasite.clouds.inventory import Snapshots
from hasite.clouds.limiter import is_urgent, urgent
from hasite.errors import RateLimited, Transient


class Listing:
    """Answers the number of the read; waits at its gate."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.snapshots = Snapshots(self.fetch, lambda: self.now)

    async def fetch(self) -> int:
        self.reads += 1
        number, error = self.reads, self.error
        await self.open.wait()
        if error is not None and not is_urgent():
            raise error
        return number


async def under_way(listing: Listing, read: int) -> None:
    async with asyncio.timeout(5):
        while listing.reads < read:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_callers_at_the_same_time_share_one_read() -> None:
    listing = Listing()
    assert await asyncio.gather(*(listing.snapshots.get(0.0) for _ in range(50))) == [1] * 50


async def test_a_listing_is_used_until_it_is_too_old_for_the_caller() -> None:
    listing = Listing()
    assert await listing.snapshots.get(10.0) == 1
    listing.now += 9.0
    assert await listing.snapshots.get(10.0) == 1
    assert await listing.snapshots.get(5.0) == 2


async def test_age_counts_from_the_beginning_of_the_read() -> None:
    listing = Listing()
    listing.open.clear()
    first = asyncio.create_task(listing.snapshots.get(10.0))
    await under_way(listing, 1)
    listing.now += 20.0
    second = asyncio.create_task(listing.snapshots.get(10.0))
    await asyncio.sleep(0)
    listing.open.set()
    assert (await first, await second) == (1, 2)


async def test_nothing_read_before_the_end_of_a_write_is_used_after_it() -> None:
    listing = Listing()
    await listing.snapshots.get(60.0)
    listing.now += 1.0
    listing.open.clear()
    with listing.snapshots.changing():
        during = asyncio.create_task(listing.snapshots.get(0.0))
        await under_way(listing, 2)
    after = asyncio.create_task(listing.snapshots.get(60.0))
    await asyncio.sleep(0)
    listing.open.set()
    assert (await during, await after) == (2, 3)


async def test_a_write_that_fails_invalidates_too() -> None:
    listing = Listing()
    await listing.snapshots.get(60.0)
    with pytest.raises(Transient), listing.snapshots.changing():
        raise Transient("it may have happened")
    assert await listing.snapshots.get(60.0) == 2


async def test_a_failed_read_fails_all_who_wait_and_the_next_caller_reads_again() -> None:
    listing = Listing()
    listing.error = Transient("page 2")
    results = await asyncio.gather(*(listing.snapshots.get(0.0) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Transient] * 3
    assert listing.reads == 1
    listing.error = None
    assert await listing.snapshots.get(0.0) == 2


async def test_a_waiter_that_is_cancelled_leaves_the_read_to_the_others() -> None:
    listing = Listing()
    listing.open.clear()
    first, second = (asyncio.create_task(listing.snapshots.get(0.0)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    listing.open.set()
    assert await second == 1


async def test_an_urgent_caller_does_not_suffer_from_a_routine_read_that_was_held_back() -> None:
    listing = Listing()
    listing.error = RateLimited("held back", 30.0)
    listing.open.clear()
    routine = asyncio.create_task(listing.snapshots.get(0.0))
    await asyncio.sleep(0)
    with urgent():
        failover = asyncio.create_task(listing.snapshots.get(0.0))
    await asyncio.sleep(0)
    listing.open.set()
    assert await failover == 2
    with pytest.raises(RateLimited):
        await routine


async def test_closing_ends_a_wait_with_an_error_and_no_cancellation() -> None:
    listing = Listing()
    listing.open.clear()
    waiter = asyncio.create_task(listing.snapshots.get(0.0))
    await under_way(listing, 1)
    listing.snapshots.close()
    with pytest.raises(Transient):
        await waiter


async def test_a_caller_that_comes_in_the_very_moment_a_read_ends_starts_a_new_one() -> None:
    listing = Listing()
    late: list[asyncio.Task[int]] = []

    async def fetch() -> int:
        listing.reads += 1
        if not late:
            listing.now += 1.0
            late.append(asyncio.create_task(listing.snapshots.get(0.0)))  # runs after the end, before the callbacks
        return listing.reads

    listing.snapshots = Snapshots(fetch, lambda: listing.now)
    assert await listing.snapshots.get(0.0) == 1
    assert await late[0] == 2
