# SPDX-License-Identifier: Apache-2.0
"""Random pods, and what a cleanup removes of each by the contract: checked against real life."""

import copy

from hypothesis import strategies as st

from lib import build
from lib.build import a_filter, a_link, a_qdisc
from nlraw import uapi

INGRESS = uapi.TC_H_INGRESS_HANDLE
CLSACT_IN = INGRESS | uapi.TC_H_MIN_INGRESS
CLSACT_OUT = INGRESS | uapi.TC_H_MIN_EGRESS

# ---------------------------------------------------------------- pods


def but(draw, facts, **others):
    """Those facts, with up to two of them changed for one of the others that there are."""
    for name in draw(st.lists(st.sampled_from(sorted(others)), max_size=2)):
        facts[name] = draw(st.sampled_from(others[name]))
    return facts


@st.composite
def tap_like(draw, ifindex):
    """An orphan, or what is nearly one."""
    name = draw(st.sampled_from(["tap0_urunc", "tap1_urunc"]))
    flags = draw(st.sampled_from([uapi.IFF_UP, uapi.IFF_UP, 0]))
    facts = but(
        draw,
        {
            "name": name,
            "kind": "tun",
            "mode": uapi.IFF_TAP,
            "carrier": 0,
            "flags": flags,
            "up_count": 1,
        },
        name=["tap0", "eth1", "xtap0_urunc", "tap0_urunc2", "tap_urunc"],
        kind=["veth", "macvtap", None],
        mode=[uapi.IFF_TUN, None],
        carrier=[1, None, None],
        flags=[uapi.IFF_UP | uapi.IFF_RUNNING, uapi.IFF_UP | uapi.IFF_LOWER_UP],
        queues=[0, 1],
        disabled_queues=[0, 1],
        up_count=[0, None],
    )
    return a_link(ifindex, facts.pop("name"), **facts)


HTB = 0x10000


@st.composite
def any_filter(draw, ifindex, parent, handle):
    """A redirect of ours, to something or nothing, or what is nearly one."""
    target = draw(st.sampled_from([0, 0, 4, 4, 5, 6, 3]))
    facts = but(
        draw,
        {
            "kind": draw(st.sampled_from(["u32", "matchall"])),
            "targets": [target],
            "chain": draw(st.sampled_from([0, 0, 1])),
        },
        kind=["flower", "bpf", "cgroup"],
        targets=[[], [0, 0], [3, target], [target, 3]],
        priority=[2],
        protocol=[0x0800],
        mask=[0xFF],
        eaction=[2, 2, 3],
        control=[3],
    )
    # the kernel has one classifier and one protocol to a priority
    apart = 10 * ["u32", "matchall", "flower", "bpf", "cgroup"].index(facts["kind"]) + facts.get(
        "protocol", 0
    )
    facts["priority"] = facts.get("priority", 1) + apart
    return a_filter(
        ifindex, facts.pop("kind"), *facts.pop("targets"), parent=parent, handle=handle, **facts
    )


@st.composite
def namespaces(draw):
    """An uplink at 2 (mostly), a veth at 3, links of all sorts at 4 to 6, with TC state."""
    uplink = draw(st.sampled_from(["eth0", "eth0", "eth0", "eth0", "gone0"]))
    links = [a_link(2, uplink, kind="veth"), a_link(3, "peer0", kind="veth")]
    links += [draw(tap_like(ifindex)) for ifindex in range(4, 4 + draw(st.integers(0, 3)))]
    qdiscs, hooks = [], []
    for each in links:
        kind = draw(st.sampled_from([None, "ingress", "clsact", "clsact"]))
        if kind is not None:
            blocks = {"ingress_block": 7} if draw(st.integers(0, 5)) == 0 else {}
            qdiscs.append(a_qdisc(each.ifindex, kind, **blocks))
            hooks += [
                (each.ifindex, parent)
                for parent in ([INGRESS] if kind == "ingress" else [CLSACT_IN, CLSACT_OUT])
            ]
        if draw(st.integers(0, 3)) == 0:
            qdiscs.append(a_qdisc(each.ifindex, "htb", HTB, uapi.TC_H_ROOT))
            hooks.append((each.ifindex, HTB))
    filters = []
    for number in range(draw(st.integers(0, 6)) if hooks else 0):
        ifindex, parent = draw(st.sampled_from([hook for hook in hooks if hook[0] == 2] or hooks))
        filters.append(draw(any_filter(ifindex, parent, number + 1)))
        # its hash table; two in a priority are more than a root table
        if filters[-1].kind == "u32" and draw(st.booleans()):
            twin = copy.deepcopy(filters[-1])
            twin.__dict__.update(table=True, handle=number + 101, targets=[])
            filters.append(twin)
    return build.Namespace(links, qdiscs, filters)


# ---------------------------------------------------------------- the contract's words


def is_ours(each):
    """Whether a link is a TAP that matches, by the contract's words."""
    name = each.name
    return (
        each.facts.get("kind", "tun") == "tun"
        and each.facts.get("mode", uapi.IFF_TAP) == uapi.IFF_TAP
        and name.startswith("tap")
        and name.endswith("_urunc")
        and len(name) >= len("tap_urunc")
    )


def is_used(each):
    """Whether a TAP is in use, by the contract's words."""
    facts = each.facts
    carrier = facts.get("carrier", 0)
    if carrier or facts.get("queues") or facts.get("disabled_queues"):
        return True
    return carrier is None and facts.get("flags", uapi.IFF_UP) != uapi.IFF_UP


def goes(each, doomed, qdiscs):
    """Whether a filter goes when the links of those ifindexes do, by the contract's words."""
    if each.ifindex in doomed:
        return True
    shared = any((one.ifindex, one.kind) == (2, "ingress") and one.blocks for one in qdiscs) or any(
        (one.ifindex, one.kind, each.parent) == (2, "clsact", CLSACT_IN) and one.blocks
        for one in qdiscs
    )
    if each.ifindex != 2 or each.table or (shared and each.parent in (INGRESS, CLSACT_IN)):
        return False
    if each.kind != "cgroup" and each.eaction in (1, 3) and set(each.targets) & doomed:
        return True
    all_frames = each.protocol == 3 and (
        each.kind == "matchall" or (each.kind == "u32" and each.mask == 0)
    )
    swallows = each.targets == [0] and (each.eaction, each.control) == (1, 4)
    return all_frames and swallows and each.parent in (INGRESS, CLSACT_IN)


def priority(each):
    return each.ifindex, each.parent, each.chain, each.priority, each.protocol, each.kind


def doomed(before, spare_fresh=False):
    """The links that go, by index, where a cleanup may do anything at all."""
    candidates = [each for each in before.links if is_ours(each)]
    return {each.ifindex for each in candidates if not (spare_fresh and not each.facts["up_count"])}


def gone(before, doomed, uplink=True):
    """The handles of the filters that go with those links.

    Without an uplink only those on the links themselves.
    """
    found = [each for each in before.filters if goes(each, doomed, before.qdiscs)]
    return {each.handle for each in found if uplink or each.ifindex in doomed}


def check_all_gone(before, after, doomed, uplink=True):
    assert not {each.ifindex for each in after.links} & doomed
    assert not {each.handle for each in after.filters} & gone(before, doomed, uplink)


def check_nothing_else_gone(before, after, doomed, uplink=True):
    """Whatever is missing was to go, and what is left is as it was."""
    links = {each.ifindex: repr(each) for each in after.links}
    assert [
        each
        for each in before.links
        if links.get(each.ifindex) != repr(each) and each.ifindex not in doomed
    ] == []

    goes_too, left = gone(before, doomed, uplink), {each.handle for each in after.filters}
    tables = [priority(each) for each in before.filters if each.table]
    for each in before.filters:
        # only a root table of which nothing hangs any more
        if each.handle not in left and each.handle not in goes_too:
            assert each.table and tables.count(priority(each)) == 1
            assert all(
                one.table or one.handle in goes_too
                for one in before.filters
                if priority(one) == priority(each)
            )

    kept = [repr(each) for each in after.qdiscs]
    for each in before.qdiscs:
        emptied = uplink and (each.ifindex, each.kind, each.blocks) == (2, "ingress", {})
        assert (repr(each) in kept) or each.ifindex in doomed or emptied
