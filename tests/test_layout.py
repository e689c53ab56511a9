"""The shape of the source tree."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "operator" / "hasite").rglob("*.py"))


def test_operator_is_no_package() -> None:
    """With an ``__init__.py`` it would shadow Python's own module ``operator`` for whatever runs in this directory."""
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT / "operator")))
def test_a_module_is_no_longer_than_400_lines(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400
