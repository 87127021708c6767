# SPDX-License-Identifier: Apache-2.0
"""Every capability taken away by itself: two matter, and the refusal names the missing one."""

import nlraw
from lib import command
from lib.rights import MATTERS, capabilities, needs, without


def test_of_all_capabilities_two_matter_and_the_refusal_names_the_one_that_is_missing(pod):
    needs("setpriv")
    clean = pod.state()
    assert len(capabilities()) > 35
    ifindex = nlraw.setup(netns=pod.path).tap.ifindex
    for name in capabilities():  # each setup removes what the one before has made
        before = pod.state() if name in MATTERS else None
        status, _, err = command.nlraw("setup", "-n", pod.path, argv=without(name))
        if name in MATTERS:
            assert status == 1 and err.startswith("nlraw: " + MATTERS[name] % pod.path), name
            assert pod.state() == before, name
        else:
            assert (status, err) == (0, ""), name
            former, ifindex = ifindex, pod.check_pair()
            assert ifindex != former, name
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == clean
