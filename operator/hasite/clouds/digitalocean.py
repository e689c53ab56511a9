"""DigitalOcean as a ``Cloud``."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hasite.clouds import objects
from hasite.clouds.base import Cloud, DropletSpec
from hasite.clouds.inventory import Snapshots
from hasite.clouds.metrics import ApiMetrics, NoMetrics
from hasite.clouds.refusals import Effect, Gone
from hasite.clouds.transport import Api, Json, Operation, read
from hasite.errors import Permanent
from hasite.plan.world import Droplet, Firewall

ENDPOINT = "https://api.digitalocean.com"
TAG = "hasite"  # what the inventory is filtered by

LIST_DROPLETS = Operation("droplets.list", Effect.READ, "droplets")
GET_DROPLET = Operation("droplets.get", Effect.READ, "droplet")
CREATE_DROPLET = Operation("droplets.create", Effect.CREATE, "droplet", timeout=30.0)
DESTROY_DROPLET = Operation("droplets.destroy", Effect.WRITE)
ACT = Operation("droplet_actions.post", Effect.WRITE, "action")
CREATE_TAG = Operation("tags.create", Effect.WRITE, "tag")
ASSIGN_TAG = Operation("tags.assign_resources", Effect.WRITE)
GET_KEY = Operation("ssh_keys.get", Effect.READ, "ssh_key")
CREATE_KEY = Operation("ssh_keys.create", Effect.WRITE, "ssh_key")  # a second one is refused: adopted
LIST_FIREWALLS = Operation("firewalls.list", Effect.READ, "firewalls")
CREATE_FIREWALL = Operation("firewalls.create", Effect.CREATE, "firewall")
UPDATE_FIREWALL = Operation("firewalls.update", Effect.WRITE, "firewall")
DESTROY_FIREWALL = Operation("firewalls.delete", Effect.WRITE)


class DigitalOcean(Cloud):
    """One account, by its API token. All users of a token share one: the limiter and the snapshots are in it."""

    def __init__(
        self,
        token: str,
        endpoint: str = ENDPOINT,
        *,
        clock: Callable[[], float] = time.monotonic,
        metrics: ApiMetrics | None = None,
    ) -> None:
        self.api = Api(token, endpoint, clock=clock, metrics=metrics or NoMetrics())
        self._clock = clock
        self._droplets = Snapshots(self._list_droplets, clock)
        self._firewalls = Snapshots(self._list_firewalls, clock)
        self._keys: set[str] = set()  # fingerprints seen in the account
        self._tags: set[str] = set()  # tags seen in the account

    @property
    def rate_limit_remaining(self) -> int:
        """Calls left to this token in this hour, as far as is known."""
        return self.api.limiter.budget.remaining(self._clock())

    async def droplets(self, max_age: float) -> Sequence[Droplet]:
        """All droplets with the tag ``hasite``."""
        return await self._droplets.get(max_age)

    async def droplet(self, droplet_id: int) -> Droplet | None:
        """One droplet by a fresh read."""
        try:
            body = await self.api.call(GET_DROPLET, droplet_id)
        except Gone:
            return None
        return read(GET_DROPLET, objects.droplet_from, body["droplet"])

    async def find_droplets(self, name: str) -> Sequence[Droplet]:
        """All droplets of exactly this name; the API's own filter ignores case."""
        items = await self.api.list(LIST_DROPLETS, name=name)
        found = (read(LIST_DROPLETS, objects.droplet_from, item) for item in items)
        return tuple(droplet for droplet in found if droplet.name == name)

    async def create_droplet(self, spec: DropletSpec) -> Droplet:
        """One POST."""
        with self._changing():
            try:
                body = await self.api.call(CREATE_DROPLET, body=objects.droplet_body(spec))
            except Permanent:
                self._keys.clear()  # a key that was taken away is among the reasons
                raise
        return read(CREATE_DROPLET, objects.droplet_from, body["droplet"])

    async def destroy_droplet(self, droplet_id: int) -> None:
        """By ID; there is no other way in here."""
        with self._changing():
            await self._unless_gone(DESTROY_DROPLET, droplet_id)

    async def power_on(self, droplet_id: int) -> None:
        """Asks for it; it is on some seconds later."""
        await self._act(droplet_id, {"type": "power_on"})

    async def rename(self, droplet_id: int, name: str) -> None:
        """Asks for it; the name is there some seconds later."""
        await self._act(droplet_id, {"type": "rename", "name": name})

    async def tag(self, droplet_id: int, tags: Sequence[str]) -> None:
        """Adds tags, creating them where they don't exist."""
        resources = {"resources": [{"resource_id": str(droplet_id), "resource_type": "droplet"}]}
        with self._changing():
            for tag in tags:
                try:
                    await self.api.call(ASSIGN_TAG, tag, body=resources)
                except Gone:
                    await self._create_tag(tag)
                    await self.api.call(ASSIGN_TAG, tag, body=resources)

    async def ensure_ssh_key(self, public_key: str, name: str) -> str:
        """Registers an OpenSSH public key once; a registration of the same key under another name is adopted."""
        try:
            fingerprint = objects.fingerprint(public_key)
        except ValueError as error:
            raise Permanent(f"SSH key {name}: {error}", reason="InvalidRequest") from error
        if fingerprint not in self._keys:
            try:
                await self.api.call(GET_KEY, fingerprint)
            except Gone:
                await self._register(public_key, name)
            self._keys.add(fingerprint)
        return fingerprint

    async def firewalls(self, max_age: float) -> Sequence[Firewall]:
        """All firewalls of the account."""
        return await self._firewalls.get(max_age)

    async def create_firewall(self, firewall: Firewall) -> Firewall:
        """Its tags first, then one POST."""
        with self._firewalls.changing():
            body = await self._write_firewall(CREATE_FIREWALL, firewall)
        return read(CREATE_FIREWALL, objects.firewall_from, body["firewall"])

    async def update_firewall(self, firewall: Firewall) -> None:
        """Replaces all of it."""
        with self._firewalls.changing():
            await self._write_firewall(UPDATE_FIREWALL, firewall, firewall.id)

    async def destroy_firewall(self, firewall_id: str) -> None:
        """One that is already gone is a success."""
        with self._firewalls.changing():
            await self._unless_gone(DESTROY_FIREWALL, firewall_id)

    async def close(self) -> None:
        """Close the connections and give up the refreshes that are under way."""
        self._droplets.close()
        self._firewalls.close()
        await self.api.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Around a write that touches droplets, and so the firewalls they are listed in."""
        with self._droplets.changing(), self._firewalls.changing():
            yield

    async def _list_droplets(self) -> Sequence[Droplet]:
        items = await self.api.list(LIST_DROPLETS, tag_name=TAG)
        return tuple(read(LIST_DROPLETS, objects.droplet_from, item) for item in items)

    async def _list_firewalls(self) -> Sequence[Firewall]:
        items = await self.api.list(LIST_FIREWALLS)
        return tuple(read(LIST_FIREWALLS, objects.firewall_from, item) for item in items)

    async def _act(self, droplet_id: int, action: dict[str, Any]) -> None:
        with self._changing():
            await self.api.call(ACT, droplet_id, body=action)

    async def _unless_gone(self, operation: Operation, key: object) -> None:
        try:
            await self.api.call(operation, key)
        except Gone:
            return

    async def _register(self, public_key: str, name: str) -> None:
        try:
            await self.api.call(CREATE_KEY, body={"name": name, "public_key": public_key})
        except Permanent as error:
            if "in use" not in str(error):
                raise

    async def _create_tag(self, tag: str) -> None:
        try:
            await self.api.call(CREATE_TAG, body={"name": tag})
        except Permanent as error:
            if "already" not in str(error):
                raise

    async def _write_firewall(self, operation: Operation, firewall: Firewall, *args: str) -> Json:
        for tag in objects.firewall_tags(firewall):
            if tag not in self._tags:
                await self._create_tag(tag)
                self._tags.add(tag)
        try:
            return await self.api.call(operation, *args, body=objects.firewall_body(firewall))
        except Permanent:
            self._tags.clear()  # a tag that was taken away is among the reasons
            raise
