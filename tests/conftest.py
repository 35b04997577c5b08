"""What tests of every room share: where the repository is."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout that the tests run from."""
    return Path(__file__).resolve().parents[1]
