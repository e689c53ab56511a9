"""Before the others when the machine is busy. Imports next to nothing, for the fuse's sake."""

import os


def prefer(level: int) -> None:
    """A starved guard loses its lease, and a starved fuse is late. What this process starts runs as everything does.

    Where real-time scheduling is refused (a kernel with RT group scheduling and no budget), the nicest value has to do.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(level))
        return
    except OSError:
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError:
        return
