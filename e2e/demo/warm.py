"""What takes long and is done once: the control plane's programs, the machines' image, their package archive."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from e2e.controlplane.toolchain import Progress
from e2e.controlplane.tools import tools
from e2e.world.machines import ensure_archive, ensure_image
from e2e.world.world import IMAGES

_printing = threading.Lock()
_started = time.monotonic()


def say(text: str) -> None:
    """One line of progress, with the time since the start; lines of several threads never mix."""
    elapsed = int(time.monotonic() - _started)
    with _printing:
        print(f"{elapsed // 60:3d}:{elapsed % 60:02d}  {text}", flush=True)


def warm(progress: Progress = say) -> None:
    """Fills the cache, side by side; returns at once when all is there. Raises the first error of any part."""
    parts: list[Callable[[], object]] = [lambda: tools(progress), *(_machines(slug, progress) for slug in IMAGES)]
    with ThreadPoolExecutor(len(parts)) as pool:
        for future in [pool.submit(part) for part in parts]:
            future.result()
    progress("control plane, machine image and package archive are at hand")


def _machines(slug: str, progress: Progress) -> Callable[[], object]:
    def build() -> None:
        ensure_image(slug, progress)
        ensure_archive(slug, progress=progress)

    return build
