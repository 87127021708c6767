# SPDX-License-Identifier: Apache-2.0
"""nlraw.tc: the requests byte for byte; qdiscs, filters and actions as captured replies have them.

The kernel of the captures has no matchall and no flower: their filters are made with
tests/lib/build.py, by the layouts of linux/pkt_cls.h. So are u32 filters with a mark or an ingress
device.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build, golden
from nlraw import tc, uapi, wire
from nlraw.errors import Malformed
from nlraw.exchange import Reply

INGRESS = uapi.TC_H_INGRESS_HANDLE

# ---------------------------------------------------------------- requests


def test_dump_qdiscs_bytes():
    assert build.sent(tc.dump_qdiscs()) == build.native(
        """
        u32=36 u16=38 u16=0x301 u32=1 u32=0     # RTM_GETQDISC, REQUEST | DUMP
        u8=0 00 00 00 s32=0 u32=0 u32=0 u32=0   # tcmsg: of all devices
        """
    )


def test_dump_filters_bytes():
    assert build.sent(tc.dump_filters(2, 0xFFFF0000, "eth0")) == build.native(
        """
        u32=36 u16=46 u16=0x301 u32=1 u32=0              # RTM_GETTFILTER, REQUEST | DUMP
        u8=0 00 00 00 s32=2 u32=0 u32=0xFFFF0000 u32=0   # tcmsg: of one parent, all priorities
        """
    )


def test_dump_filters_of_a_shared_block_bytes():
    request = tc.dump_filters(uapi.TCM_IFINDEX_MAGIC_BLOCK, 22, "block 22")
    assert build.sent(request) == build.native(
        """
        u32=36 u16=46 u16=0x301 u32=1 u32=0        # RTM_GETTFILTER, REQUEST | DUMP
        u8=0 00 00 00 s32=-1 u32=0 u32=22 u32=0    # tcmsg: TCM_IFINDEX_MAGIC_BLOCK, the block
        """
    )


def test_dump_chains_bytes():
    assert build.sent(tc.dump_chains(2, 0xFFFF0000, "eth0")) == build.native(
        """
        u32=36 u16=102 u16=0x301 u32=1 u32=0             # RTM_GETCHAIN, REQUEST | DUMP
        u8=0 00 00 00 s32=2 u32=0 u32=0xFFFF0000 u32=0   # tcmsg: of one parent
        """
    )


def test_get_root_table_bytes_name_the_priority_and_a_table_without_a_number():
    payload = build.redirect_payload(2, "u32", 4, handle=0x80100801, priority=7, chain=3)
    request = tc.get_root_table(build.as_filter(payload), 0xFFFF0000, "eth0")
    assert build.sent(request) == build.native(
        """
        u32=52 u16=46 u16=0x1 u32=1 u32=0               # RTM_GETTFILTER, REQUEST
        u8=0 00 00 00 s32=2 u32=0xFFF00000 u32=0xFFFF0000 info=7/0x0003
        u16=8 u16=1 'u32' 00                            # TCA_KIND
        u16=8 u16=11 u32=3                              # TCA_CHAIN
        """
    )
    assert (request.step, request.object) == ("read root table of priority 7", "eth0")


def test_delete_qdisc_bytes_name_its_kind_handle_and_parent():
    qdisc = build.as_qdisc(build.qdisc_payload(2, "ingress"))
    assert build.sent(tc.delete_qdisc(qdisc, "eth0")) == build.native(
        """
        u32=48 u16=37 u16=0x5 u32=1 u32=0                         # RTM_DELQDISC, REQUEST | ACK
        u8=0 00 00 00 s32=2 u32=0xFFFF0000 u32=0xFFFFFFF1 u32=0   # tcmsg: index, handle, parent
        u16=12 u16=1 'ingress' 00                                 # TCA_KIND
        """
    )


def test_delete_filter_bytes_name_its_kind_handle_priority_and_protocol():
    filter = build.as_filter(build.redirect_payload(2, "u32", 4, handle=0x80000800, priority=7))
    assert build.sent(tc.delete_filter(filter, 0xFFFF0000, "eth0")) == build.native(
        """
        u32=44 u16=45 u16=0x5 u32=1 u32=0               # RTM_DELTFILTER, REQUEST | ACK
        u8=0 00 00 00 s32=2 u32=0x80000800 u32=0xFFFF0000 info=7/0x0003
        u16=8 u16=1 'u32' 00                            # TCA_KIND
        """
    )


def test_delete_filter_bytes_name_a_chain_that_is_not_the_first():
    filter = build.as_filter(
        build.redirect_payload(2, "matchall", 4, handle=1, priority=7, chain=3)
    )
    assert build.sent(tc.delete_filter(filter, 0xFFFFFFF2, "eth0"))[36:] == build.native(
        """
        u16=13 u16=1 'matchall' 00 00 00 00             # TCA_KIND
        u16=8 u16=11 u32=3                              # TCA_CHAIN
        """
    )


def test_delete_filter_bytes_take_the_parent_it_was_listed_by_not_the_one_it_reports():
    filter = build.as_filter(build.redirect_payload(2, "u32", 4, parent=0xFFFFFFF2))
    assert build.sent(tc.delete_filter(filter, 0xFFFF0000, "eth0"))[28:32] == build.native(
        "u32=0xFFFF0000"
    )


def test_delete_priority_bytes_have_no_handle():
    filter = build.as_filter(build.redirect_payload(2, "u32", 4, handle=0x80000800, priority=7))
    one, all = (
        build.sent(make(filter, INGRESS, "eth0")) for make in (tc.delete_filter, tc.delete_priority)
    )
    assert one[:24] + bytes(4) + one[28:] == all
    assert one[24:28] == build.native("u32=0x80000800")


def test_create_ingress_bytes():
    assert build.sent(tc.create_ingress(2, "eth0")) == build.native(
        """
        u32=48 u16=36 u16=0x605 u32=1 u32=0           # RTM_NEWQDISC, REQUEST | ACK | CREATE | EXCL
        u8=0 00 00 00 s32=2 u32=0xFFFF0000 u32=0xFFFFFFF1 u32=0 # tcmsg: index, ffff:, TC_H_INGRESS
        u16=12 u16=1 'ingress' 00                                 # TCA_KIND
        """
    )


def test_create_redirect_bytes():
    assert build.sent(tc.create_redirect(2, 0xFFFF0000, 4, "eth0")) == build.native(
        """
        # RTM_NEWTFILTER, REQUEST | ACK | ECHO | CREATE | EXCL
        u32=140 u16=44 u16=0x60d u32=1 u32=0
        # tcmsg: no handle, no priority, ETH_P_ALL
        u8=0 00 00 00 s32=2 u32=0 u32=0xFFFF0000 info=0/0x0003
        u16=8 u16=1 'u32' 00                                  # TCA_KIND
        u16=96 u16=0x8002                                     # TCA_OPTIONS
        u16=36 u16=5                                          # TCA_U32_SEL
        u8=1 u8=0 u8=1 00 u16=0 u16=0 s16=0 s16=0 u32=0       # tc_u32_sel: terminal, one key
        u32=0 u32=0 s32=0 s32=0                               # tc_u32_key: mask 0
        u16=56 u16=0x8007                                     # TCA_U32_ACT
        u16=52 u16=0x8001                                     # the action of order 1
        u16=11 u16=1 'mirred' 00 00                           # TCA_ACT_KIND
        u16=36 u16=0x8002                                     # TCA_ACT_OPTIONS
        u16=32 u16=2                                          # TCA_MIRRED_PARMS
        u32=0 u32=0 s32=4 s32=0 s32=0 s32=1 u32=4             # tc_mirred: stolen, redirect, to 4
        """
    )


def test_requests_say_what_they_do_to_what():
    filter = build.as_filter(build.redirect_payload(2, "u32", 4, priority=7))
    qdisc = build.as_qdisc(build.qdisc_payload(2, "ingress"))
    expected = {
        tc.delete_qdisc(qdisc, "eth0"): "delete ingress qdisc",
        tc.delete_filter(filter, INGRESS, "eth0"): "delete u32 filter",
        tc.delete_priority(filter, INGRESS, "eth0"): "delete u32 filters of priority 7 on",
        tc.create_ingress(2, "eth0"): "create qdisc (ingress)",
        tc.create_redirect(2, INGRESS, 4, "eth0"): "create redirect (u32, mirred)",
    }
    assert {each: each.step for each in expected} == expected
    assert {(each.object, each.fixed) for each in expected} == {("eth0", 20)}


def test_the_redirect_that_is_made_is_read_as_one():
    payload = tc.create_redirect(2, INGRESS, 4, "eth0", priority=7).payload
    made = build.as_filter(payload)
    assert (made.priority, made.protocol) == (7, uapi.ETH_P_ALL)
    (action,) = made.actions()
    assert made.matches_all
    assert (action.redirect, action.eaction, action.control) == (
        4,
        uapi.TCA_EGRESS_REDIR,
        uapi.TC_ACT_STOLEN,
    )


# ---------------------------------------------------------------- qdiscs


@golden.needs_little_endian
def test_captured_qdiscs():
    (reply,) = golden.play("qdiscs", tc.dump_qdiscs())
    found = tc.qdiscs(reply.answer())
    facts = [
        (each.kind, each.handle, each.parent, each.ingress_block, each.egress_block)
        for each in found
    ]
    assert facts == [
        ("noqueue", 0, uapi.TC_H_ROOT, 0, 0),
        ("clsact", 0xFFFF0000, uapi.TC_H_INGRESS, 0, 0),
        ("noqueue", 0, uapi.TC_H_ROOT, 0, 0),
        ("ingress", 0xFFFF0000, uapi.TC_H_INGRESS, 0, 0),
        ("htb", 0x10000, uapi.TC_H_ROOT, 0, 0),
        ("ingress", 0xFFFF0000, uapi.TC_H_INGRESS, 7, 0),
        ("pfifo_fast", 0, uapi.TC_H_ROOT, 0, 0),
    ]
    assert [each.ifindex for each in found] == [2, 2, 3, 3, 4, 4, 5]


def test_shared_blocks_of_both_sides_are_read():
    qdisc = build.as_qdisc(build.qdisc_payload(2, "clsact", ingress_block=7, egress_block=8))
    assert (qdisc.ingress_block, qdisc.egress_block) == (7, 8)


def test_a_qdisc_without_a_kind_has_an_empty_one():
    assert build.as_qdisc(uapi.tcmsg.pack(0, 2, 1, 2, 0)).kind == ""


def test_qdiscs_and_filters_are_picked_from_among_other_messages():
    row = [
        (uapi.RTM_NEWQDISC, build.qdisc_payload(2, "ingress")),
        (uapi.RTM_NEWTFILTER, build.filter_payload(2, "bpf")),
        (3, bytes(4)),
    ]
    messages = [build.received(type, payload) for type, payload in row]
    assert [each.kind for each in tc.qdiscs(messages)] == ["ingress"]
    assert [each.kind for each in tc.filters(messages)] == ["bpf"]


def test_qdiscs_and_filters_say_what_they_are_in_their_repr():
    assert (
        repr(build.as_qdisc(build.qdisc_payload(2, "ingress")))
        == "Qdisc(ingress, ifindex=2, handle=0xffff0000, parent=0xfffffff1)"
    )
    filter = build.as_filter(build.redirect_payload(2, "u32", 4, handle=0x800, priority=7, chain=3))
    assert (
        repr(filter)
        == "Filter(u32, ifindex=2, parent=0xffff0000, chain=3, priority=7, handle=0x800)"
    )


# ---------------------------------------------------------------- filters, captured


def captured(name):
    """The filters of a capture: of u32 the bare priority, the hash table, then the filters."""
    (reply,) = golden.play(name, tc.dump_filters(2, INGRESS, "eth0"))
    return tc.filters(reply.answer())


def facts_of(filter):
    return [
        (action.kind, action.redirect, action.eaction, action.control)
        for action in filter.actions()
    ]


REDIRECT, MIRROR, STOLEN, PIPE = uapi.TCA_EGRESS_REDIR, 2, uapi.TC_ACT_STOLEN, 3


@golden.needs_little_endian
@pytest.mark.parametrize("name", ["filters-redirect", "filters-redirect-own"])
def test_a_captured_redirect(name):
    bare, table, filter = captured(name)
    assert (bare.is_priority, bare.is_table, bare.handle, bare.actions()) == (True, False, 0, [])
    assert (table.is_priority, table.is_table, table.actions()) == (False, True, [])
    assert (filter.is_priority, filter.is_table, filter.matches_all) == (False, False, True)
    assert (filter.kind, filter.priority, filter.protocol, filter.chain) == (
        "u32",
        49152,
        uapi.ETH_P_ALL,
        0,
    )
    ((kind, target, eaction, control),) = facts_of(filter)
    assert (kind, eaction, control) == ("mirred", REDIRECT, STOLEN)
    assert target > 3  # the TAP was made after eth0


@golden.needs_little_endian
def test_a_captured_redirect_whose_target_is_gone():
    filter = captured("filters-redirect-dead")[-1]
    assert filter.matches_all
    assert facts_of(filter) == [("mirred", 0, REDIRECT, STOLEN)]


@golden.needs_little_endian
def test_a_captured_redirect_to_a_shared_block_has_no_target_that_could_be_gone():
    filter = captured("filters-redirect-block")[-1]
    assert filter.matches_all
    assert facts_of(filter) == [("mirred", None, REDIRECT, STOLEN)]


@golden.needs_little_endian
def test_a_captured_mirror_is_no_redirect():
    filter = captured("filters-mirror-dead")[-1]
    assert filter.matches_all
    assert facts_of(filter) == [("mirred", None, MIRROR, PIPE)]


@golden.needs_little_endian
def test_captured_foreign_filters():
    found = captured("filters-foreign")
    with_condition, with_class = [each for each in found if each.is_filter]
    assert (with_condition.priority, with_condition.protocol, with_condition.matches_all) == (
        10,
        0x0800,
        False,
    )
    assert facts_of(with_condition) == [("mirred", 0, REDIRECT, STOLEN)]
    assert (with_class.priority, with_class.matches_all, with_class.actions()) == (20, True, [])


@golden.needs_little_endian
def test_captured_siblings_have_handles_of_their_own():
    live, dead = captured("filters-siblings")[2:]
    assert live.priority == dead.priority == 7
    assert live.handle != dead.handle
    # peer0 is made with eth0, and first
    assert facts_of(live)[0][1] == live.ifindex - 1 and facts_of(dead)[0][1] == 0


@golden.needs_little_endian
def test_captured_actions_of_a_chain_are_in_their_order():
    filter = captured("filters-two-actions")[-1]
    assert filter.chain == 3
    mirror, redirect = facts_of(filter)
    assert mirror == ("mirred", None, MIRROR, PIPE)
    assert redirect[0] == "mirred" and redirect[1] > 3 and redirect[2:] == (REDIRECT, STOLEN)


@golden.needs_little_endian
def test_a_captured_root_table_that_stayed():
    rest = [each for each in captured("filters-root-table") if each.priority == 49152]
    assert [(each.is_priority, each.is_table) for each in rest] == [(True, False), (False, True)]


@golden.needs_little_endian
def test_a_captured_bpf_filter():
    bare, filter = captured("filters-bpf")
    assert bare.is_priority and bare.kind == "bpf"
    assert (
        filter.kind,
        filter.is_priority,
        filter.is_table,
        filter.matches_all,
        filter.actions(),
    ) == (
        "bpf",
        False,
        False,
        False,
        [],
    )


@golden.needs_little_endian
def test_captured_no_filters():
    assert captured("filters-none") == []


# ---------------------------------------------------------------- filters, made


@pytest.mark.parametrize("kind", ["u32", "matchall", "flower", "bpf"])
def test_a_redirect_is_found_in_each_classifier(kind):
    filter = build.as_filter(build.redirect_payload(2, kind, 4))
    assert facts_of(filter) == [("mirred", 4, REDIRECT, STOLEN)]
    assert filter.matches_all is (kind != "bpf")


@pytest.mark.parametrize(
    "options, matches_all",
    [
        ((), True),
        ((wire.attribute_u32(uapi.TCA_FLOWER_FLAGS, 0),), True),
        ((wire.attribute_u32(uapi.TCA_FLOWER_CLASSID, 1),), True),
        ((wire.attribute_u32(uapi.TCA_FLOWER_IN_HW_COUNT, 0),), True),
        ((build.FLOWER_KEY,), False),
        ((wire.attribute_u32(uapi.TCA_FLOWER_FLAGS, 0), wire.attribute_u32(87, 1)), False),
    ],
)
@pytest.mark.parametrize("protocol", [uapi.ETH_P_ALL, 0x0800])
def test_a_flower_without_keys_matches_all(options, matches_all, protocol):
    options += (build.actions("flower", build.mirred(4)),)
    payload = build.filter_payload(2, "flower", *options, protocol=protocol)
    assert build.as_filter(payload).matches_all is (matches_all and protocol == uapi.ETH_P_ALL)


def test_an_entry_is_a_filter_a_table_or_a_priority():
    table = build.as_filter(build.filter_payload(2, "u32", build.ROOT_TABLE, handle=0x80000000))
    priority = build.as_filter(build.filter_payload(2, "u32", handle=0))
    filter = build.as_filter(build.redirect_payload(2, "u32", 4, handle=0x80000800))
    kinds = [
        (each.is_table, each.is_priority, each.is_filter) for each in (table, priority, filter)
    ]
    assert kinds == [(True, False, False), (False, True, False), (False, False, True)]


@pytest.mark.parametrize(
    "handle, table",
    [
        (0x80000800, 0x80000000),
        (0x80000000, 0x80000000),
        (0x80100801, 0x80100000),
        (0x00801FFF, 0x00800000),
        (0x00100801, 0x00100000),
    ],
)
def test_the_table_of_a_u32_filter_is_in_its_handle(handle, table):
    assert build.as_filter(build.redirect_payload(2, "u32", 4, handle=handle)).table == table


@pytest.mark.parametrize("count", [0, 1, 2])
def test_only_is_the_one_entry_of_a_reply(count):
    request = tc.get_root_table(build.as_filter(build.redirect_payload(2, "u32", 4)), INGRESS, "x")
    reply = Reply(request)
    payload = build.filter_payload(2, "u32", build.ROOT_TABLE, handle=0x80000000)
    reply.messages = [build.received(uapi.RTM_NEWTFILTER, payload)] * count
    if count == 1:
        assert tc.only(reply).handle == 0x80000000
        return
    with pytest.raises(Malformed) as caught:
        tc.only(reply)
    assert "expected one filter, found %d" % count in str(caught.value)


def test_chains_are_picked_from_among_other_messages():
    messages = [
        build.received(uapi.RTM_NEWCHAIN, build.chain_payload(2, INGRESS, 5)),
        build.received(uapi.RTM_NEWTFILTER, build.redirect_payload(2, "u32", 4, chain=7)),
        build.received(uapi.RTM_NEWCHAIN, uapi.tcmsg.pack(0, 2, 0, INGRESS, 0)),
    ]
    assert tc.chains(messages) == [5, 0]


def test_the_actions_of_an_unknown_classifier_are_not_read():
    assert build.as_filter(build.redirect_payload(2, "cgroup", 4)).actions() == []


def test_a_redirect_to_the_ingress_side_is_one_too():
    filter = build.as_filter(
        build.filter_payload(
            2, "matchall", build.actions("matchall", build.mirred(4, uapi.TCA_INGRESS_REDIR))
        )
    )
    assert facts_of(filter) == [("mirred", 4, uapi.TCA_INGRESS_REDIR, STOLEN)]


@pytest.mark.parametrize("eaction", [0, 2, 4, 5])
def test_what_mirrors_does_not_redirect(eaction):
    filter = build.as_filter(
        build.filter_payload(2, "matchall", build.actions("matchall", build.mirred(4, eaction)))
    )
    assert filter.actions()[0].redirect is None


def test_actions_of_other_kinds_redirect_nothing():
    filter = build.as_filter(
        build.filter_payload(
            2, "u32", build.selector(0), build.actions("u32", build.action("gact"), build.mirred(4))
        )
    )
    assert facts_of(filter) == [("gact", None, None, None), ("mirred", 4, REDIRECT, STOLEN)]


def test_the_actions_of_a_filter_are_read_once():
    filter = build.as_filter(build.redirect_payload(2, "u32", 4))
    assert filter.actions() is filter.actions()


def test_an_action_without_a_kind_has_an_empty_one():
    (action,) = build.as_filter(
        build.filter_payload(2, "matchall", build.actions("matchall", b""))
    ).actions()
    assert (action.kind, action.redirect) == ("", None)


def test_a_mirred_without_its_parameters_redirects_nothing():
    filter = build.as_filter(
        build.filter_payload(2, "matchall", build.actions("matchall", build.action("mirred")))
    )
    assert facts_of(filter) == [("mirred", None, None, None)]


def test_actions_are_run_by_their_order_not_by_their_place():
    row = [
        wire.attribute_nested(order, build.mirred(target))
        for order, target in ((3, 30), (1, 10), (2, 20))
    ]
    filter = build.as_filter(
        build.filter_payload(2, "matchall", wire.attribute_nested(uapi.TCA_MATCHALL_ACT, *row))
    )
    assert [action.redirect for action in filter.actions()] == [10, 20, 30]


U32 = [build.selector(0), build.actions("u32", build.mirred(0))]


@pytest.mark.parametrize(
    "options, expected",
    [
        (U32, True),
        ([build.selector()], True),
        ([build.selector(0, 0, 0)], True),
        ([build.selector(0xFFFFFFFF)], False),
        ([build.selector(0, 0, 1)], False),
        ([build.selector(0, terminal=False)], False),
        (U32 + [wire.attribute(uapi.TCA_U32_MARK, bytes(12))], False),
        (U32 + [wire.attribute_string(uapi.TCA_U32_INDEV, "eth1")], False),
        ([build.actions("u32", build.mirred(0))], False),
        ([build.ROOT_TABLE], False),
    ],
)
def test_a_u32_matches_all_if_it_has_no_condition_of_any_sort(options, expected):
    assert build.as_filter(build.filter_payload(2, "u32", *options)).matches_all is expected


@pytest.mark.parametrize("kind", ["u32", "matchall"])
@pytest.mark.parametrize("protocol", [0x0800, 0x86DD, 0x0806, 0x0300])
def test_a_filter_for_one_protocol_does_not_match_all(kind, protocol):
    assert not build.as_filter(build.redirect_payload(2, kind, 4, protocol=protocol)).matches_all


def test_only_u32_has_hash_tables():
    assert build.as_filter(build.filter_payload(2, "u32", build.ROOT_TABLE)).is_table
    assert not build.as_filter(build.filter_payload(2, "bpf", build.ROOT_TABLE)).is_table


def test_a_filter_with_a_handle_or_with_options_is_not_a_bare_priority():
    assert build.as_filter(build.filter_payload(2, "u32", handle=0)).is_priority
    assert not build.as_filter(build.filter_payload(2, "u32", handle=1)).is_priority
    assert not build.as_filter(
        build.filter_payload(2, "u32", build.selector(0), handle=0)
    ).is_priority


# ---------------------------------------------------------------- malformed


def test_a_filter_shorter_than_its_fixed_part_is_malformed():
    with pytest.raises(Malformed) as caught:
        build.as_filter(bytes(19))
    assert caught.value.offset == 16


@pytest.mark.parametrize(
    "option, read, offset",
    [
        (wire.attribute(uapi.TCA_U32_SEL, bytes(15)), "matches_all", 60),
        (
            wire.attribute(
                uapi.TCA_U32_SEL, uapi.tc_u32_sel.pack(1, 0, 2, 0, 0, 0, 0, 0) + bytes(16)
            ),
            "matches_all",
            92,
        ),
        (wire.attribute(uapi.TCA_U32_ACT, b"\4\0"), "actions", 60),
        (
            build.actions(
                "u32",
                wire.attribute_string(1, "mirred")
                + wire.attribute_nested(2, wire.attribute(2, bytes(27))),
            ),
            "actions",
            84,
        ),
    ],
)
def test_a_filter_with_a_short_option_is_malformed_when_it_is_read(option, read, offset):
    filter = build.as_filter(build.filter_payload(2, "u32", option))
    with pytest.raises(Malformed) as caught:
        getattr(filter, read)() if read == "actions" else getattr(filter, read)
    assert caught.value.offset == offset


def read_all(filter):
    """Read every fact of a filter."""
    facts_of(filter)
    return (
        filter.matches_all,
        filter.is_table,
        filter.is_priority,
        filter.priority,
        filter.chain,
        repr(filter),
    )


kinds = st.sampled_from(["u32", "matchall", "flower", "bpf", "cgroup", ""])
near_options = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.one_of(
            st.binary(max_size=48),
            st.just(wire.attribute_nested(1, build.mirred(0))),
            st.just(build.selector(0)[4:]),
        ),
    ),
    max_size=4,
).map(lambda row: [wire.attribute(type, value) for type, value in row])


@build.patient
@given(kinds, near_options)
def test_any_options_are_a_filter_or_malformed(kind, options):
    try:
        read_all(build.as_filter(build.filter_payload(2, kind, *options)))
    except Malformed:
        pass


@build.patient
@given(st.binary(max_size=120))
def test_any_bytes_are_a_qdisc_and_a_filter_or_malformed(payload):
    try:
        qdisc = build.as_qdisc(payload)
        assert qdisc.ingress_block >= 0 and qdisc.egress_block >= 0
        read_all(build.as_filter(payload))
    except Malformed:
        pass


FILTERS = [
    name for name in golden.names() if name.startswith("filters-") and name != "filters-none"
]


@golden.needs_little_endian
@build.patient
@given(st.sampled_from(FILTERS), st.data())
def test_a_captured_filter_with_bytes_changed_is_a_filter_or_malformed(name, data):
    message = data.draw(st.sampled_from(golden.messages(name)[:-1]))
    payload = bytearray(message.payload)
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_all(build.as_filter(bytes(payload)))
    except Malformed:
        pass
