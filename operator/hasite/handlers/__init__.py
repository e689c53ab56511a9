"""kopf: an object changed, so its reconciler is woken, unless it was only its status. Nothing else.

kopf runs in a thread and an event loop of its own: when it ends it cancels every task of its loop that it hasn't known
before, and no reconcile or failure detection may fall to that. It only ever *reads*: with ``on.event`` alone it writes
no annotation, no finalizer and no Event.
"""

from hasite.handlers.handlers import Wake, build_registry
from hasite.handlers.watcher import Watcher

__all__ = ["Wake", "Watcher", "build_registry"]
