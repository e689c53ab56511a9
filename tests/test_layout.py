"""The shape of the source tree."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_operator_is_no_package() -> None:
    """With an ``__init__.py`` it would shadow Python's own module ``operator`` for whatever runs in this directory."""
    assert not (ROOT / "operator" / "__init__.py").exists()
