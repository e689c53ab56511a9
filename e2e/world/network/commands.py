"""Running the host's tools (ip, nft, mount …) from asyncio."""

import asyncio
from collections.abc import Sequence


class CommandError(Exception):
    """A tool of the host failed; the message holds its command line and its own words."""


async def run(argv: Sequence[str], text: str = "") -> str:
    """Run a command with `text` as its input and return its output; CommandError when it fails."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate(text.encode())
    if process.returncode:
        raise CommandError(f"{' '.join(argv)}: exit {process.returncode}: {err.decode(errors='replace').strip()}")
    return out.decode(errors="replace")
