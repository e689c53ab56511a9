"""What the scenarios measured: printed, and kept in build/e2e-figures.json for the documentation."""

import fcntl
import json
import time
from pathlib import Path

PATH = Path(__file__).resolve().parent.parent / "build" / "e2e-figures.json"


def record(name: str, seconds: float, bound: float | None = None) -> None:
    """Notes a time from damage to healed. AssertionError when it is past its bound."""
    print(f"  {name}: {seconds:.1f} s" + (f" (at most {bound:g} s)" if bound else ""))
    note(name, {"seconds": round(seconds, 2), "bound": bound})
    assert bound is None or seconds <= bound, f"{name} took {seconds:.1f} s, more than {bound:g} s"


def note(name: str, value: object) -> None:
    """Keeps any figure under its name; a later one of that name replaces it."""
    PATH.parent.mkdir(exist_ok=True)
    with PATH.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # suites run side by side
        file.seek(0)
        figures = json.loads(file.read() or "{}")
        figures[name] = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "value": value}
        file.truncate(0)
        file.write(json.dumps(figures, indent=2, sort_keys=True) + "\n")
