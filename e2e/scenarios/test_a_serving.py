"""The main job: a site that is applied serves, from every location, and only in the way that it should."""

import asyncio
import json

from e2e import figures
from e2e.probes import reaches
from e2e.scenarios.conftest import SHOP
from e2e.site import NAMESPACE, Stage, eventually, manifest

DOMAIN = "shop.example.com"


async def test_a_site_that_is_applied_becomes_ready(stage: Stage) -> None:
    await stage.apply(manifest(SHOP, apps=2))
    figures.record("apply until Ready, 2 load balancers and 4 apps", await stage.until_ready(SHOP, 240))
    await stage.kubectl("wait", "--for=condition=Ready", "hasites/shop", "--timeout=5s")


async def test_every_name_server_leads_to_the_load_balancers_of_both_locations(shop: Stage) -> None:
    addresses = await shop.addresses(SHOP)
    assert len(addresses) == 2
    await eventually(lambda: shop.watcher.holds(DOMAIN, *addresses), 5, "both servers give both addresses")


async def test_visitors_are_served_by_the_apps_of_both_locations(shop: Stage) -> None:
    async with shop.visitors(DOMAIN) as summaries:
        await asyncio.sleep(3)
    assert set(summaries[0].by_machine) == {droplet.name for droplet in await shop.droplets(SHOP, "app")}


async def test_the_load_balancer_of_one_location_uses_the_apps_of_the_other(shop: Stage) -> None:
    (address,) = await shop.addresses(SHOP, "new-york")
    served: set[str] = set()
    for _ in range(8):
        _, answer = await shop.fetch("client", f"http://{address}/")
        served |= {line.split()[1] for line in answer.splitlines() if line.lower().startswith("x-served-by")}
    assert {d.name for d in await shop.droplets(SHOP, "app", "amsterdam")} & served


async def test_apps_answer_their_load_balancers_only(shop: Stage) -> None:
    namespace = shop.world.network.namespace("client")
    for droplet in await shop.droplets(SHOP, "app"):
        assert not await reaches(namespace, droplet.public_ipv4, 8080)


async def test_ssh_answers_the_operator_only(shop: Stage) -> None:
    for droplet in await shop.droplets(SHOP):
        assert await reaches(shop.world.network.namespace("ops"), droplet.public_ipv4)
        assert not await reaches(shop.world.network.namespace("client"), droplet.public_ipv4)


async def test_each_machine_shows_the_host_key_that_is_pinned_in_the_status_and_no_other(shop: Stage) -> None:
    for kind, role in (("hasite", "app"), ("pool", "lb")):
        found = await shop.get(kind, SHOP)
        assert found
        pinned = {record["name"]: record["hostKey"] for record in found["status"]["droplets"]}
        assert not any(record.get("bootstrapKeys") for record in found["status"]["droplets"])
        for droplet in await shop.droplets(SHOP, role):
            _, out = await shop.world.output_at("ops", "ssh-keyscan", droplet.public_ipv4)
            shown = [line.partition(" ")[2] for line in out.splitlines() if line and not line.startswith("#")]
            assert shown == [pinned[droplet.name]]
            assert pinned[droplet.name].split()[1] not in droplet.user_data


async def test_the_private_key_of_the_user_data_is_nowhere_on_the_machine_any_more(shop: Stage) -> None:
    (droplet, *_) = await shop.droplets(SHOP, "lb")
    private = droplet.user_data.partition("BEGIN OPENSSH PRIVATE KEY-----")[2].split()
    # The middle of the key: what comes before it is the same in every key.
    secret = private[len(private) // 2 - 2]
    places = ("/etc/ssh", "/var/lib/cloud", "/run/cloud-init", "/root")
    status, out = await shop.world.machines.exec(droplet.id, ("grep", "-rlF", secret, *places))
    # The local world's seed stands in for the metadata service, which is not on the machine.
    assert {line for line in out.splitlines() if "/seed/" not in line} == set(), status


async def test_kubectl_get_shows_what_a_person_wants_to_know(shop: Stage) -> None:
    header, row = (await shop.kubectl("get", "hasites")).splitlines()
    assert header.split() == ["NAME", "DOMAIN", "READY", "LOCATIONS", "LOAD-BALANCERS", "APPS", "ADDRESSES", "AGE"]
    assert row.split()[:6] == ["shop", DOMAIN, "True", "2/2", "2/2", "4/4"]
    assert set(row.split()[6].split(",")) > set(await shop.addresses(SHOP))


async def test_kubectl_describe_tells_the_story(shop: Stage) -> None:
    text = await shop.kubectl("describe", "hasites", "shop")
    assert "CreateDroplet" in text and "Ready" in text


async def test_the_operator_writes_nothing_to_the_spec(shop: Stage) -> None:
    out = await shop.kubectl("get", "hasites", SHOP, "-o", "json", "--show-managed-fields")
    fields = json.loads(out)["metadata"]["managedFields"]
    writers = {each["manager"] for each in fields if "f:spec" in each["fieldsV1"]}
    assert writers == {"kubectl-client-side-apply"}, NAMESPACE
