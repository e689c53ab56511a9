"""The local world's machines: real Debian systems behind the droplets."""

from e2e.world.machines.archive import ArchiveServer, ensure_archive
from e2e.world.machines.clean import clean, run_directory
from e2e.world.machines.hypervisor import Machines
from e2e.world.machines.image import SUITES, ensure_image

__all__ = ["SUITES", "ArchiveServer", "Machines", "clean", "ensure_archive", "ensure_image", "run_directory"]
