"""Worlds side by side: the scenarios, the databases and the rest each run in one process, in their order."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before the one that reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            group = item.path.relative_to(HERE).parts[0] if item.path.parent != HERE else "parts"
            item.add_marker(pytest.mark.xdist_group(group))
