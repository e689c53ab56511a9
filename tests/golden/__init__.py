"""Files that a person can review, of what the renderers write. Rewritten by ``REWRITE_GOLDEN=1 pytest tests``."""

import os
from pathlib import Path


def assert_golden(name: str, text: str) -> None:
    """Compares with ``tests/golden/<name>``, or rewrites that file when asked to."""
    path = Path(__file__).parent / name
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert path.exists(), f"{path} is missing: run REWRITE_GOLDEN=1 pytest"
    assert text == path.read_text(), f"{name} changed: look at the difference, then run REWRITE_GOLDEN=1 pytest"
