# SPDX-License-Identifier: Apache-2.0
"""Random pods, and what a cleanup removes of each by the contract's words.

A pod has an uplink at 2 (mostly), a veth at 3, TAPs and what is nearly one at 4 to 6, at times a
device stacked on one of these, shared block 7, explicit chains, and u32 tables that chains share.
"""

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
            "kind": draw(st.sampled_from(["u32", "u32", "matchall", "flower"])),
            "targets": [target],
            "chain": draw(st.sampled_from([0, 0, 0, 1])),
        },
        kind=["bpf", "cgroup"],
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


def a_table(one, handle):
    """A hash table of the priority of a u32 filter."""
    same = {name: getattr(one, name) for name in ("parent", "priority", "protocol", "chain")}
    return a_filter(one.ifindex, "u32", handle=handle, table=True, **same)


@st.composite
def namespaces(draw):
    """A pod of any sort."""
    uplink = draw(st.sampled_from(["eth0", "eth0", "eth0", "eth0", "gone0"]))
    links = [a_link(2, uplink, kind="veth"), a_link(3, "peer0", kind="veth")]
    links += [draw(tap_like(ifindex)) for ifindex in range(4, 4 + draw(st.integers(0, 3)))]
    lower = draw(st.sampled_from([None, None, None, 2, 4, 5]))
    if lower is not None:
        netnsid = draw(st.sampled_from([None, None, 0]))
        links.append(a_link(7, "mac0", kind="macvlan", lower=lower, lower_netnsid=netnsid))
    qdiscs, places = [], []
    for each in links:
        kind = draw(st.sampled_from([None, "ingress", "ingress", "clsact"]))
        if kind is not None:
            blocks = {"ingress_block": 7} if draw(st.integers(0, 5)) == 0 else {}
            qdiscs.append(a_qdisc(each.ifindex, kind, **blocks))
            parents = [INGRESS] if kind == "ingress" else [CLSACT_IN, CLSACT_OUT]
            if blocks:  # the filters of that side are the block's
                places.append((build.BLOCK, 7))
                del parents[0]
            places += [(each.ifindex, parent) for parent in parents]
        if draw(st.integers(0, 3)) == 0:
            qdiscs.append(a_qdisc(each.ifindex, "htb", HTB, uapi.TC_H_ROOT))
            places.append((each.ifindex, HTB))
    filters, tables = [], 0
    for handle in range(1, draw(st.integers(1, 7)) if places else 1):
        ours = [place for place in places if place[0] == 2]
        ifindex, parent = draw(st.sampled_from(draw(st.sampled_from([ours, places])) or places))
        made = draw(any_filter(ifindex, parent, handle))
        has_root = any(priority(each) == priority(made) for each in filters)
        filters.append(made)
        # a u32 priority has a root table; one more is somebody's
        for _ in range((not has_root) + draw(st.booleans()) if made.kind == "u32" else 0):
            tables += 1
            filters.append(a_table(made, 100 + tables))
    pod = build.Namespace(links, qdiscs, filters)
    for place in draw(st.lists(st.sampled_from(places), max_size=1)) if places else ():
        pod.chains.append(place + (draw(st.sampled_from([1, 5])),))
    return pod


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


def is_used(each, links=()):
    """Whether a TAP is in use, by the contract's words; one of ``links`` may be stacked on it."""
    facts = each.facts
    carrier = facts.get("carrier", 0)
    if carrier or facts.get("queues") or facts.get("disabled_queues"):
        return True
    for upper in links:
        lower = upper.facts.get("lower"), upper.facts.get("lower_netnsid")
        if lower == (each.ifindex, None):
            return True
    return carrier is None and facts.get("flags", uapi.IFF_UP) != uapi.IFF_UP


def doomed(before, spare_fresh=False):
    """The links that go, by index, where a cleanup may do anything at all."""
    return {
        each.ifindex
        for each in before.links
        if is_ours(each)
        and not is_used(each, before.links)
        and not (spare_fresh and not each.facts["up_count"])
    }


def has_used(before):
    """Whether a TAP that matches is in use."""
    return any(is_ours(each) and is_used(each, before.links) for each in before.links)


def has_spared(before, doomed):
    """Whether an orphan stays: a fresh one that is spared."""
    return any(
        is_ours(each) and not is_used(each, before.links) and each.ifindex not in doomed
        for each in before.links
    )


def is_block_in_use(before, doomed):
    """Whether a device that stays uses the shared block."""
    return any(each.blocks and each.ifindex not in doomed for each in before.qdiscs)


def goes(each, doomed, before, uplink=True):
    """Whether a filter goes when the links of those ifindexes do, by the contract's words.

    Without an uplink no dead redirect does.
    """
    if each.ifindex in doomed:
        return True
    if each.ifindex == build.BLOCK and not is_block_in_use(before, doomed):
        return bool(doomed)
    if each.table:
        return False
    if each.kind != "cgroup" and each.eaction in (1, 3) and set(each.targets) & doomed:
        return True
    if not uplink or has_used(before) or each.ifindex != 2:
        return False
    all_frames = each.protocol == 3 and (
        each.kind == "matchall" or (each.kind in ("u32", "flower") and each.mask == 0)
    )
    swallows = each.targets == [0] and (each.eaction, each.control) == (1, 4)
    return all_frames and swallows and each.parent in (INGRESS, CLSACT_IN)


def tables_of(each):
    """What u32 filters have in common that are in the same tables."""
    place = each.parent if each.ifindex == build.BLOCK else each.parent & ~0xFFFF
    return each.kind, each.ifindex, place, each.priority


def priority(each):
    return each.ifindex, each.parent, each.chain, each.priority, each.protocol, each.kind


def gone(before, doomed, uplink=True):
    """The handles of the filters that go with those links."""
    return {each.handle for each in before.filters if goes(each, doomed, before, uplink)}


def has_content(ifindex, before, doomed, uplink):
    """Whether an `ingress` qdisc holds something that stays, by the contract's words."""
    if any(place[:2] == (ifindex, INGRESS) for place in before.chains):
        return True
    here = [each for each in before.filters if (each.ifindex, each.parent) == (ifindex, INGRESS)]
    if any(not each.table and not goes(each, doomed, before, uplink) for each in here):
        return True
    roots = len({priority(each) for each in here if each.table})  # each priority has one
    return sum(each.table for each in here) > roots


def check_all_gone(before, after, doomed, uplink=True):
    assert not {each.ifindex for each in after.links} & doomed
    assert not {each.handle for each in after.filters} & gone(before, doomed, uplink)
    for each in before.qdiscs:
        if each.kind != "ingress" or each.blocks or each.ifindex in doomed:
            continue
        going = [
            one
            for one in before.filters
            if (one.ifindex, one.parent, one.table) == (each.ifindex, INGRESS, False)
            and goes(one, doomed, before, uplink)
        ]
        if has_content(each.ifindex, before, doomed, uplink):
            continue
        if has_spared(before, doomed):
            continue
        if going or (each.ifindex == 2 and uplink and doomed and not has_used(before)):
            assert repr(each) not in [repr(one) for one in after.qdiscs]


def check_nothing_else_gone(before, after, doomed, uplink=True):
    """Whatever is missing was to go, and what is left is as it was."""
    links = {each.ifindex: repr(each) for each in after.links}
    assert [
        each
        for each in before.links
        if links.get(each.ifindex) != repr(each) and each.ifindex not in doomed
    ] == []

    goes_too, left = gone(before, doomed, uplink), {each.handle for each in after.filters}
    for each in before.filters:
        # only a root table of which nothing hangs any more
        if each.handle not in left and each.handle not in goes_too:
            same = [one for one in before.filters if tables_of(one) == tables_of(each)]
            assert each.table and sum(one.table for one in same) == len(set(map(priority, same)))
            own = [one for one in same if priority(one) == priority(each)]
            assert all(one.table or one.handle in goes_too for one in own)

    kept = [repr(each) for each in after.qdiscs]
    for each in before.qdiscs:
        if repr(each) in kept or each.ifindex in doomed:
            continue
        assert (each.kind, each.blocks) == ("ingress", {})
        assert not has_content(each.ifindex, before, doomed, uplink)
        assert not has_spared(before, doomed)
        assert (each.ifindex == 2 and uplink) or goes_too
