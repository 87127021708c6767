# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the live tests: network namespaces that a test gets and that end with it."""

import pytest

from lib import nodes, pods


@pytest.fixture
def make_pod():
    """Make pods as `pods.Pod` does; all are gone at the end of the test.

    Skips where none can be made.
    """
    reason = pods.missing()
    if reason is not None:
        pytest.skip("needs a network namespace of its own: " + reason)
    made = []

    def make(*arguments, **options):
        made.append(pods.Pod(*arguments, **options))
        return made[-1]

    yield make
    for pod in reversed(made):
        pod.close()


@pytest.fixture
def pod(make_pod):
    """A pod with an uplink and no TAP."""
    return make_pod()


@pytest.fixture
def node(make_pod, tmp_path):
    """A node of its own for a test.

    ``make_pod`` is there to skip where no namespace can be made.
    """
    directory = tmp_path / "netns"
    directory.mkdir()
    made = nodes.Node(directory)
    yield made
    made.close()
