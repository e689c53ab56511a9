"""What a guard costs at rest: ``python -m tests.guard.toy.cost [SECONDS]``, with three of them and the toy server."""

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.guard.toy.cluster import Cluster
from tests.guard.waiting import wait

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds that the process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        values = stat.read().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / _TICKS


def memory(pid: int) -> float:
    """MiB that are resident."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def main(seconds: float) -> None:
    """Prints a line for each process."""
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder), ("a", "b", "c"), python="python3") as cluster:
        wait(cluster.settled, 30)
        processes = {f"{kind} {n.name}": p for n in cluster.nodes.values() for kind, p in n.processes() if p}
        before = {name: cpu(process.pid) for name, process in processes.items()}
        time.sleep(seconds)
        for name, process in sorted(processes.items()):
            used = (cpu(process.pid) - before[name]) / seconds * 100
            print(f"{name}: {used:.2f} % of a core, {memory(process.pid):.1f} MiB")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
