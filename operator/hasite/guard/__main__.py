"""``guard.pyz`` runs the guard; ``guard.pyz fuse`` the fuse, which loads nothing of the guard; ``backup`` one job."""

import sys


def main() -> int:
    """The exit status."""
    if sys.argv[1:2] == ["fuse"]:
        from hasite.guard import fuse

        fuse.main("/run/hasite/lease", tuple(sys.argv[2:]), "hasite-db.service")
    if sys.argv[1:2] == ["backup"]:
        from hasite.guard import backupjob

        return backupjob.main()
    from hasite.guard.program import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
