"""How often zones are read: 250 calls a minute are all that an account has, for everything and all its sites."""

import asyncio
from dataclasses import replace

from e2e.world.cloud import LARGE_PLAN, zones
from tests.scenarios.ground import SERVERS
from tests.scenarios.stories import LONG, is_gone, ready
from tests.scenarios.universe import DOMAIN, NAMESPACE, Universe, manifest, play, site_spec

SITES = 10


def _reads(universe: Universe) -> int:
    """Of the records of any zone, since the journal was cleared."""
    return sum(call.method == "GET" and call.path.endswith("/records") for call in universe.cloud.journal)


def _create_sites(universe: Universe) -> None:
    for number in range(SITES):
        spec = site_spec(domain=f"www.site-{number}.example")
        universe.kube.create(manifest("HASite", spec, f"site-{number}"))


def _stalled(universe: Universe) -> str:
    pool = universe.pool()
    conditions = pool.status.conditions if pool else ()
    return next((c.reason for c in conditions if c.type == "Stalled" and c.status == "True"), "")


def _all_ready(universe: Universe) -> bool:
    sites = [raw for (kind, space, _), raw in universe.kube.objects.items() if (kind, space) == ("HASite", NAMESPACE)]
    conditions = [c for raw in sites for c in raw.get("status", {}).get("conditions", ())]
    return [(c["type"], c["status"]) for c in conditions].count(("Ready", "True")) == SITES


def test_new_sites_read_their_zones_a_few_times_for_each_change_of_them() -> None:
    async def story(universe: Universe) -> None:
        universe.start()
        _create_sites(universe)
        await universe.until(lambda: _all_ready(universe), LONG, "Ready")
        writes = sum(c.method != "GET" and "/domains" in c.path for c in universe.cloud.journal)
        assert _reads(universe) <= writes + 2 * SITES

    play(story, addresses=LARGE_PLAN)


def test_a_pool_whose_machines_still_boot_reads_its_zone_about_once_a_minute() -> None:
    async def story(universe: Universe) -> None:
        universe.cloud.core.timing = replace(universe.cloud.core.timing, boot_delay=300.0)
        universe.start()
        universe.create_site()
        await asyncio.sleep(20.0)
        universe.cloud.journal.clear()
        await asyncio.sleep(240.0)
        assert _reads(universe) <= 4

    play(story)


def test_a_pool_whose_name_servers_never_agree_reads_its_zone_about_once_a_minute() -> None:
    async def story(universe: Universe) -> None:
        universe.start()
        universe.create_site()
        await ready(universe)
        universe.names.silent.update(SERVERS)
        await asyncio.sleep(60.0)
        universe.cloud.journal.clear()
        await asyncio.sleep(300.0)
        assert _reads(universe) <= 5

    play(story)


def test_a_pool_that_is_kept_from_its_name_reads_its_zone_about_once_a_minute() -> None:
    async def story(universe: Universe) -> None:
        zone = zones.new_domain(universe.cloud.core, DOMAIN, "192.0.2.99")
        universe.cloud.state.domains[DOMAIN] = zone
        zones.publish_soon(universe.cloud.core, zone)
        universe.start()
        universe.create_site()
        await universe.until(lambda: _stalled(universe) == "ForeignRecords", LONG, "the refusal")
        await asyncio.sleep(60.0)
        universe.cloud.journal.clear()
        await asyncio.sleep(300.0)
        assert _reads(universe) <= 5

    play(story)


def test_a_record_that_is_lost_while_no_name_server_answers_is_put_back_within_a_minute_and_a_half() -> None:
    async def story(universe: Universe) -> None:
        universe.start()
        universe.create_site()
        await ready(universe)
        universe.names.silent.update(SERVERS)
        await asyncio.sleep(100.0)
        (zone,) = universe.cloud.state.domains.values()
        lost = next(record for record in zone.records.values() if record.type == "AAAA")
        del zone.records[lost.id]
        await universe.until(lambda: lost.data in {r.data for r in zone.records.values()}, 92.0, "the record")

    play(story)


def test_a_withdrawal_is_decided_on_a_read_of_that_moment() -> None:
    async def story(universe: Universe) -> None:
        universe.start()
        universe.create_site()
        await ready(universe)
        await asyncio.sleep(100.0)
        universe.witness.trouble = True
        universe.cloud.journal.clear()
        universe.ground.dark.add("nyc3")
        await universe.until(lambda: len(universe.names.addresses(DOMAIN)) == 2, 10.0, "withdrawal")
        calls = list(universe.cloud.journal)
        gone = next(call for call in calls if call.method == "DELETE")
        read = max(call.at for call in calls if call.path.endswith("/records") and call.at < gone.at)
        assert gone.at - read < 0.5

    play(story)


def test_a_deletion_reads_its_zone_a_few_times_for_each_change_of_it() -> None:
    async def story(universe: Universe) -> None:
        universe.start()
        universe.create_site()
        await ready(universe)
        await asyncio.sleep(20.0)
        universe.cloud.journal.clear()
        universe.delete_site()
        await universe.until(lambda: is_gone(universe), LONG, "the end")
        writes = sum(c.method != "GET" and "/domains" in c.path for c in universe.cloud.journal)
        assert _reads(universe) <= 2 * writes + 4

    play(story)
