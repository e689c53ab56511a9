"""A new database that begins with a backup's data, and with none of the reigns that it was under."""

from pathlib import Path

from hasite.guard.backup_mariadb import RESTORED
from hasite.guard.engines.mysqlcommon_sql import Session


def is_raw(data: Path) -> bool:
    """Whether ``forget`` is still to do its work."""
    return (data / RESTORED).exists()


async def forget(data: Path, hand: Session) -> None:
    """After the first start: the log and the reigns of the other database are taken out; the first promotion makes
    the table of reigns anew. Nothing of this is in the new log."""
    if is_raw(data):
        await hand.do(
            "SET SESSION sql_log_bin=0",
            "DROP DATABASE IF EXISTS hasite",
            "RESET MASTER",
            "SET GLOBAL gtid_slave_pos=''",
            "SET SESSION sql_log_bin=1",
            timeout=60.0,
        )
        (data / RESTORED).unlink()
