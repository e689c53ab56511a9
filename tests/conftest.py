"""For all tests."""

import gc


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the collector needn't look at it again and again."""
    gc.collect()
    gc.freeze()
