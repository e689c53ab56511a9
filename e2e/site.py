"""How the scenarios handle sites in the local world: applying them, breaking what they stand on, waiting for them."""

import asyncio
import contextlib
import inspect
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import yaml

from e2e.client import Summary, summarise
from e2e.watch import SERVERS, Watcher
from e2e.world.cloud import Server, serve
from e2e.world.cloud.state import Droplet
from e2e.world.cluster import KubectlError
from e2e.world.world import ROOT, TOKEN, World

Object = Mapping[str, Any]

NAMESPACE = "shop"
LEASE = 5
"""Seconds of the operators' Lease."""
WITHDRAWN = "withdrawn-token"
"""A second token of the account, for what becomes of a site whose token is withdrawn."""
PERSON = "person-token"
TOKENS = {TOKEN: "read-write", WITHDRAWN: "read-write", PERSON: "read-write"}
LOCATIONS = {"new-york": "nyc3", "amsterdam": "ams3", "frankfurt": "fra1"}
PLURALS = {"hasite": "hasites", "pool": "loadbalancerpools"}


async def eventually(
    condition: Callable[[], Any], within: float, what: str = "", every: float = 0.2
) -> tuple[Any, float]:
    """Waits for a true value; returns it, and how many seconds it took. AssertionError with the last value.

    `condition` may be a coroutine function.
    """
    started = time.monotonic()
    while True:
        value = condition()
        found = await value if inspect.isawaitable(value) else value
        took = time.monotonic() - started
        if found:
            return found, took
        assert took < within, f"not within {within:g} s: {what or inspect.getsource(condition).strip()}; last: {found}"
        await asyncio.sleep(every)


def user_data(version: str = "1") -> str:
    """The example's app, telling its version in what it says."""
    documents = yaml.safe_load_all((ROOT / "examples" / "site.yaml").read_text())
    site = next(document for document in documents if document["kind"] == "HASite")
    return str(site["spec"]["app"]["userData"]).replace("Welcome to the shop", f"Welcome to version {version}")


def manifest(
    name: str,
    *,
    locations: Sequence[str] = ("new-york", "amsterdam"),
    apps: int = 1,
    load_balancers: int = 1,
    secret: str = "digitalocean",
    **spec: Any,
) -> dict[str, Any]:
    """A HASite with the shortest times that are sensible. `spec` replaces whole fields."""
    return {
        "apiVersion": "hasite.dev/v1alpha1",
        "kind": "HASite",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "domain": f"{name}.example.com",
            "credentialsRef": {"name": secret},
            "locations": [{"name": each, "region": LOCATIONS[each]} for each in locations],
            "loadBalancers": {"replicasPerLocation": load_balancers},
            "app": {
                "replicasPerLocation": apps,
                "port": 8080,
                "healthCheck": {"path": "/healthz", "interval": "1s", "timeout": "800ms"},
                "userData": user_data(),
                "drain": "2s",
                "progressDeadline": "1m",
            },
            "dns": {"ttlSeconds": 30, "degradedTtlSeconds": 30},
            "failureDetection": {"recoveryThreshold": 3, "holdDown": "3s"},
            **spec,
        },
    }


class Stage:
    """The world with its operator, the API, and the watch."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.watcher = Watcher(world)
        self.namespaces = 1
        """Of operators: each has a Lease and an SSH key of its own."""
        self._deployed: dict[str, dict[str, str]] = {}
        self._deployment: asyncio.Task[None] | None = None
        self._http: aiohttp.ClientSession
        self._cloud: Server
        self._api = ""

    async def start(self) -> None:
        """The world, one operator, the namespace and its Secret."""
        await self.world.start(tokens=TOKENS)
        self._cloud = await serve(self.world.cloud)
        await self._connect()
        await self.start_operator("operator")
        self._deployment = asyncio.create_task(self._keep_deployed())
        await self.watcher.start()
        await self.world.kubectl("create", "namespace", NAMESPACE)
        await self.secret("digitalocean")

    async def _connect(self) -> None:
        view = json.loads(await self.world.kubectl("config", "view", "--raw", "--flatten", "--output", "json"))
        self._api = view["clusters"][0]["cluster"]["server"]
        token = view["users"][0]["user"]["token"]
        # The way to the API server is this machine's loopback.
        insecure = ssl._create_unverified_context()
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"}, connector=aiohttp.TCPConnector(ssl=insecure)
        )

    async def close(self) -> None:
        """Ends everything."""
        if self._deployment is not None:
            self._deployment.cancel()
        await self.watcher.close()
        if hasattr(self, "_http"):
            await self._http.close()
        if hasattr(self, "_cloud"):
            await self._cloud.runner.cleanup()
        await self.world.stop()

    # -- operators --------------------------------------------------------------------------------------------------

    async def start_operator(self, name: str, **environ: str) -> None:
        """As a Deployment does it: from now on it is started again whenever it ends."""
        environ = {"HASITE_LEASE_DURATION": str(LEASE), **environ}
        await self.world.start_operator(name, **environ)
        self._deployed[name] = environ

    async def _keep_deployed(self) -> None:
        while True:
            for name, environ in list(self._deployed.items()):
                if self.world.operators[name].process.poll() is not None:
                    with contextlib.suppress(KubectlError):  # the API may be away
                        await self.world.start_operator(name, **environ)
            await asyncio.sleep(0.5)

    @property
    def deployed(self) -> frozenset[str]:
        """The operators that are started again whenever they end."""
        return frozenset(self._deployed)

    def kill_operator(self, name: str) -> None:
        """By SIGKILL, for good."""
        self._deployed.pop(name, None)
        self.world.operators[name].kill()

    @contextlib.asynccontextmanager
    async def another_operator(self, name: str, **environ: str) -> AsyncIterator[None]:
        """Beside the one that every scenario finds and leaves."""
        await self.start_operator(name, **environ)
        try:
            yield
        finally:
            self.kill_operator(name)

    @contextlib.asynccontextmanager
    async def without_operator(self) -> AsyncIterator[None]:
        """The one that every scenario finds is killed, and is there again afterwards."""
        self.kill_operator("operator")
        try:
            yield
        finally:
            await self.start_operator("operator")

    def crash_operators(self) -> None:
        """By SIGKILL, all of them; they are started again."""
        for name in self._deployed:
            self.world.operators[name].kill()

    async def leads(self, name: str) -> bool:
        """Whether an operator holds its Lease."""
        return "hasite_leader 1.0" in await self.world.metrics(name)

    async def is_warm(self, name: str) -> bool:
        """Whether an operator is ready to lead."""
        port = self.world.operators[name].port
        _, answer = await self.fetch("ops", f"http://127.0.0.1:{port}/readyz")
        return answer.startswith("HTTP/1.1 200")

    # -- Kubernetes -------------------------------------------------------------------------------------------------

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """As the cluster's admin, in the sites' namespace."""
        return await self.world.kubectl("-n", NAMESPACE, *arguments, stdin=stdin)

    async def secret(self, name: str, token: str = TOKEN) -> None:
        """A Secret with an API token."""
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": token}}
        await self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    async def apply(self, *manifests: Object) -> None:
        """As a user does it; the names of the sites are watched from now on."""
        for each in manifests:
            self.watcher.watch(each["spec"]["domain"])
        body = {"apiVersion": "v1", "kind": "List", "items": manifests}
        await self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    async def patch(self, name: str, spec: Object) -> None:
        """Merges into a site's spec."""
        await self.kubectl("patch", "hasites", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    async def get(self, kind: str, name: str) -> Object | None:
        """A `hasite` or its `pool`; None when there is none. aiohttp.ClientError while the API is away."""
        url = f"{self._api}/apis/hasite.dev/v1alpha1/namespaces/{NAMESPACE}/{PLURALS[kind]}/{name}"
        async with self._http.get(url) as answer:
            if answer.status == 404:
                return None
            answer.raise_for_status()
            found: Object = await answer.json()
            return found

    async def uids(self, name: str) -> list[str]:
        """Of a site and its pool."""
        return [found["metadata"]["uid"] for kind in PLURALS if (found := await self.get(kind, name))]

    async def condition(self, name: str, kind: str, of: str = "hasite") -> Object:
        """One condition, judged by the latest spec; empty while there is none."""
        found = await self.get(of, name)
        for each in (found or {}).get("status", {}).get("conditions", ()):
            if found and each["type"] == kind and each.get("observedGeneration") == found["metadata"]["generation"]:
                return dict(each)
        return {}

    async def is_ready(self, name: str) -> bool:
        """Ready by the latest spec."""
        return (await self.condition(name, "Ready")).get("status") == "True"

    async def until_ready(self, name: str, within: float = 150) -> float:
        """Seconds that it took. AssertionError with the conditions when it takes longer."""
        _, took = await eventually(lambda: self.is_ready(name), within, f"{name} is Ready", 0.3)
        return took

    async def until_condition(
        self, name: str, kind: str, *words: str, status: str = "True", within: float = 60
    ) -> tuple[Object, float]:
        """Waits for a condition whose reason and message hold all the words."""

        async def holds() -> Object:
            found = await self.condition(name, kind)
            text = f"{found.get('reason')} {found.get('message')}"
            return found if found.get("status") == status and all(word in text for word in words) else {}

        return await eventually(holds, within, f"{kind} of {name} is {status} and says {words}")

    async def delete(self, name: str, within: float = 180) -> float:
        """Seconds until a site is gone with its finalizer."""
        self.watcher.watch(f"{name}.example.com").gone = True
        await self.kubectl("delete", "hasites", name, "--wait=false", "--ignore-not-found")

        async def gone() -> bool:
            return await self.get("hasite", name) is None

        _, took = await eventually(gone, within, f"{name} is gone")
        return took

    async def events(self, reason: str = "") -> list[Object]:
        """The Events of the sites' namespace, by reason."""
        selector = (f"--field-selector=reason={reason}",) if reason else ()
        found: list[Object] = json.loads(await self.kubectl("get", "events", *selector, "-o", "json"))["items"]
        return found

    # -- the cloud --------------------------------------------------------------------------------------------------

    async def cloud(self, method: str, path: str, **body: Any) -> Any:
        """A call of the provider's API by a person, with a token of their own. AssertionError when it is refused."""
        headers = {"Authorization": f"Bearer {PERSON}"}
        url = f"{self._cloud.url}/v2/{path}"
        async with self._http.request(method, url, headers=headers, json=body or None) as answer:
            text = await answer.text()
            assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
            return json.loads(text) if text else None

    async def destroy(self, *droplets: Droplet) -> None:
        """As a person does it in the control panel. The watch knows that it was not the operator."""
        for droplet in droplets:
            self.watcher.excused.update(droplet.addresses())
            await self.cloud("DELETE", f"droplets/{droplet.id}")

    async def droplets(self, name: str, role: str = "", location: str = "") -> list[Droplet]:
        """A site's droplets at the provider: those of a role (`lb`, `app`), at a location; oldest first."""
        uids = await self.uids(name)
        tags = {f"hasite:{each}:{uid}" for each in ("lb", "app") if role in ("", each) for uid in uids}
        return [
            droplet
            for _, droplet in sorted(self.world.cloud.state.droplets.items())
            if not droplet.deleting and tags & set(droplet.tags)
            if location in ("", self.location(droplet))
        ]

    def location(self, droplet: Droplet) -> str:
        """The name of the location that a droplet is in."""
        return next(name for name, region in LOCATIONS.items() if region == droplet.region)

    async def addresses(self, name: str, location: str = "") -> list[str]:
        """The public addresses of a site's load balancers."""
        return [droplet.public_ipv4 for droplet in await self.droplets(name, "lb", location)]

    async def on(self, droplet: Droplet, *argv: str, text: str = "") -> str:
        """What a command prints on a machine, as root. AssertionError when it fails."""
        status, out = await self.world.machines.exec(droplet.id, argv, text)
        assert status == 0, f"{argv} on {droplet.name}: exit status {status}: {out}"
        return out

    def owned_by(self, uid: str) -> list[str]:
        """What is at the provider of one owner: droplets, firewalls, records, in words."""
        state = self.world.cloud.state
        droplets = [d.name for d in state.droplets.values() if f"hasite:owner:{uid}" in d.tags]
        firewalls = [f.name for f in state.firewalls.values() if f.name.endswith(uid)]
        texts = [
            f"{record.name} in {domain.name}"
            for domain in state.domains.values()
            for record in domain.records.values()
            if record.type == "TXT" and f"uid={uid}" in record.data
        ]
        return [*droplets, *firewalls, *texts]

    def orphans(self, live: set[str]) -> list[str]:
        """Things at the provider that carry the UID of an owner that is not there any more."""
        state = self.world.cloud.state
        tags = (tag for d in state.droplets.values() for tag in d.tags)
        texts = (r.data for d in state.domains.values() for r in d.records.values() if r.type == "TXT")
        names = (f.name for f in state.firewalls.values())
        uid = r"([0-9a-f]{8}-[0-9a-f-]{27})"
        pattern = re.compile(rf"hasite:owner:{uid}|uid={uid}|hasite-(?:lb|app)-{uid}")
        found = {next(filter(None, match.groups())) for t in (*tags, *texts, *names) if (match := pattern.search(t))}
        return [thing for each in sorted(found - live) for thing in self.owned_by(each)]

    async def live_uids(self) -> set[str]:
        """The UIDs of all our objects."""
        out = await self.world.kubectl("get", "hasites,loadbalancerpools", "-A", "-o", "json")
        return {item["metadata"]["uid"] for item in json.loads(out)["items"]}

    # -- visitors ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def visitors(self, domain: str, rate: float = 50) -> AsyncIterator[list[Summary]]:
        """Load while the block runs; its summary is in the list afterwards. AssertionError when a request failed."""
        summaries: list[Summary] = []
        with tempfile.NamedTemporaryFile("w+", suffix=".jsonl") as output:
            servers = [f"--server={server}" for server in SERVERS.values()]
            process = self.world.run_at(
                "client",
                [sys.executable, "-m", "e2e.client", domain, *servers, f"--rate={rate}"],
                stdout=output,
                stderr=subprocess.PIPE,
                cwd=ROOT,
            )
            try:
                await eventually(lambda: os.fstat(output.fileno()).st_size > 0, 20, "the first request", 0.05)
                yield summaries
            finally:
                process.terminate()
                _, errors = await asyncio.to_thread(process.communicate)
            output.seek(0)
            summaries.append(summarise(output))
        print(f"  visitors: {summaries[0]}")
        assert process.returncode == 0, errors.decode()
        assert not summaries[0].failed, str(summaries[0])

    async def fetch(self, place: str, url: str, *options: str) -> tuple[int, str]:
        """curl at a place of the internet: its exit status, and the body after the headers."""
        return await self.world.output_at(place, "curl", "-si", "--max-time", "3", *options, url)


__all__ = ["LOCATIONS", "NAMESPACE", "KubectlError", "Stage", "eventually", "manifest", "user_data"]
