"""What a machine is told about itself: cloud-init's NoCloud seed and the files of its identity."""

import json
import uuid
from pathlib import Path

from e2e.world.cloud.backend import MachineSpec


def write_seed(root: Path, spec: MachineSpec) -> None:
    """Prepare a new machine's root for its first boot. User data is passed on as it is, in whatever format."""
    seed = root / "var/lib/cloud/seed/nocloud"
    seed.mkdir(parents=True, exist_ok=True)
    (seed / "meta-data").write_text(meta_data(spec))
    user_data = seed / "user-data"
    user_data.touch(mode=0o600)
    user_data.write_text(spec.user_data)
    (root / "etc/hostname").write_text(f"{spec.name}\n")
    (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")


def meta_data(spec: MachineSpec) -> str:
    """NoCloud's meta-data; JSON is YAML."""
    return json.dumps(
        {"instance-id": f"droplet-{spec.id}", "local-hostname": spec.name, "public-keys": list(spec.ssh_keys)}
    )
