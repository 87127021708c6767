# SPDX-License-Identifier: Apache-2.0
"""The pyroute2 peer.

Arguments: the directories to import it and the rest of this folder from; then `cleanup` to do that
once.
"""

import os
import sys
import time
from fnmatch import fnmatchcase

sys.path[:0] = sys.argv[1:3]

from pyroute2 import IPRoute, netns
from serve import serve, tally

IFF_TAP = 2


def told(link):
    return link["index"], link.get("ifname")


def links(count, **kind):
    with IPRoute() as route:
        return tally(
            count,
            lambda: list(route.get_links(**kind)),
            lambda found: [told(link) for link in found],
        )


def taps(route, in_use):
    return [
        link
        for link in route.get_links(kind="tun")
        if link.get(("linkinfo", "data", "tun_type")) == IFF_TAP
        and bool(link.get("carrier")) == in_use
        and fnmatchcase(link.get("ifname"), "tap*_urunc")
    ]


def scan(count):
    def once():
        with IPRoute() as route:
            return [told(link) for link in taps(route, in_use=True)]

    return tally(count, once, list)


def cleanup(count=1):
    """As nlraw's, for a namespace known to hold nothing but what the product made."""
    removed = 0
    with IPRoute() as route:
        uplinks = route.link_lookup(ifname="eth0")
        for link in taps(route, in_use=False) if uplinks else ():
            route.tc("del", "ingress", index=uplinks[0])
            route.tc("del", "ingress", index=link["index"])
            route.link("del", index=link["index"])
            removed += 1
    return {"removed": removed}


def sweep(directory):
    told = {"removed": 0, "namespaces": 0}
    for name in os.listdir(directory):
        netns.pushns(os.path.join(directory, name))
        try:
            told["removed"] += cleanup()["removed"]
        finally:
            netns.popns()
        told["namespaces"] += 1
    return told


def delete(count):
    with IPRoute() as route:
        found = taps(route, in_use=False)
        begun = time.perf_counter_ns()
        for link in found:
            route.link("del", index=link["index"])
        return {"links": len(found), "ns": time.perf_counter_ns() - begun}


if __name__ == "__main__":
    if sys.argv[3:] == ["cleanup"]:
        sys.exit(not cleanup()["removed"])
    serve(
        {
            "dump": links,
            "taps": lambda count: links(count, kind="tun"),
            "scan": scan,
            "cleanup": cleanup,
            "delete": delete,
            "sweep": sweep,
        }
    )
