"""Peers are compared where they are installed: none of them is a dependency, and some pin versions that others refuse."""

import importlib.metadata

import pytest


def peer(name, distribution, version):
    """The package, or a skip that says why."""
    try:
        found = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed: pip install --no-deps {distribution}=={version}")
    if found != version:
        pytest.skip(f"{distribution} is {found}: these tests describe {version}")
    return pytest.importorskip(name, exc_type=ImportError)


@pytest.fixture(scope="session")
def polygraph():
    """lm-polygraph."""
    return peer("lm_polygraph.estimators", "lm-polygraph", "0.7.0")


@pytest.fixture(scope="session")
def uqlm():
    """uqlm."""
    return peer("uqlm.nli", "uqlm", "0.6.7")
