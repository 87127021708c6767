# SPDX-License-Identifier: Apache-2.0
"""Devices that must survive a group delete."""


def add_strangers(pod):
    """Make what looks like an orphan and is none, or is one in a group and nobody's business."""
    pod.batch(
        "link add tapveth_urunc type veth peer name far",
        "tuntap add dev tun0 mode tun",
        "tuntap add dev tap0_other mode tap",
        "tuntap add dev tap_uruncs mode tap",
        "link set tap0_other group 77",
        "link set peer0 group 77",
    )
    pod.tc("qdisc", "add", "dev", "tap0_other", "root", "handle", "1:", "htb")
    pod.add_ingress("peer0")
    pod.redirect("peer0", "far")
