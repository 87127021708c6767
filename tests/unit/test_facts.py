# SPDX-License-Identifier: Apache-2.0
"""nlraw.facts: what a guest needs of an uplink, out of captured lists and made ones."""

import pytest

from lib import build, golden, lists
from nlraw import facts, inet, neighbour, nexthop, uapi
from nlraw.guest import GuestAddress, GuestNeighbour, GuestRoute, NextHop

NAMES = {1: "lo", 2: "eth0", 3: "net1"}


def a_link(ifindex=2, name="eth0", mtu=1500, address=b""):
    payload = build.link_payload(ifindex, name, kind="veth", mode=None, mtu=mtu)
    if address:
        payload += lists.wire.attribute(uapi.IFLA_ADDRESS, address)
    return build.as_link(payload)


def describe(addresses=(), routes=(), neighbours=(), objects=(), link=None, names=NAMES):
    known = {each.id: each for each in objects}
    return facts.describe_uplink(link or a_link(), addresses, routes, neighbours, names, known)


def routes_of(*routes, objects=()):
    return describe(routes=routes, objects=objects).routes


def route_of(*arguments, **options):
    (found,) = routes_of(lists.a_route(*arguments, **options))
    return found


# ---------------------------------------------------------------- captured


@golden.needs_little_endian
def test_captured_lists_become_the_facts_of_an_uplink():
    def listed(name, request, decode):
        (reply,) = golden.play(name, request)
        return decode(reply.answer())

    addresses = listed("addresses-of-guest", inet.dump_addresses(), inet.addresses)
    routes = listed("routes-of-guest", inet.dump_routes(inet.AF_UNSPEC), inet.routes)
    near = listed("neighbours", neighbour.dump(3, "eth0"), neighbour.neighbours)
    assert not facts.needs_objects(routes)
    uplink = describe(addresses, routes, near, link=a_link(3), names={2: "peer0", 3: "eth0"})
    # 169.254.7.7 comes first because the kernel lists narrow scopes first
    assert (uplink.local, uplink.prefixlen, uplink.gateway) == ("169.254.7.7", 16, "169.254.1.1")
    assert [address.words() for address in uplink.addresses] == [
        "169.254.7.7/16 scope link",
        "10.9.8.2/24 broadcast 10.9.8.255",
        "10.9.9.2 peer 10.9.9.1/32",
        "10.9.8.3/24",
        "fd00::1:2 peer fd00::1:1/128",
        "fd00::2/64",
    ]
    assert [route.words() for route in uplink.routes if route.protocol != "kernel"] == [
        "default via 169.254.1.1 src 10.9.8.2 metric 5 mtu 1450",
        "10.5.0.0/16 via inet6 fe80::1",
        "10.6.0.0/16 tos 0x10 via 172.16.0.1 proto 77 onlink",
        "10.7.0.0/16 nexthop via 169.254.1.1 dev eth0 weight 3 nexthop via 10.9.7.1 dev peer0 "
        "weight 1 nexthop via inet6 fe80::5 dev eth0 weight 1 onlink",
        "169.254.1.1",
        "fd05::1 src fd00::2 metric 7",
        "default metric 1024 mtu 1400 nexthop via fd00::1 dev eth0 weight 2 "
        "nexthop via fd00::9 dev eth0 weight 1",
    ]
    assert [route.words() for route in uplink.routes if route.protocol == "kernel"] == [
        "fd00::/64 proto kernel metric 256"
    ]
    assert [each.words() for each in uplink.neighbours] == [
        "169.254.1.1 lladdr 02:00:00:00:00:01",
        "fd00::1 lladdr 02:00:00:00:00:02",
    ]


@golden.needs_little_endian
def test_captured_routes_that_have_the_ids_of_their_next_hops_alone():
    (reply,) = golden.play("routes-by-object", inet.dump_routes(inet.AF_UNSPEC))
    routes = inet.routes(reply.answer())
    assert facts.needs_objects(routes)
    (reply,) = golden.play("next-hops", nexthop.dump())
    found = describe(
        routes=routes,
        objects=nexthop.objects(reply.answer()),
        link=a_link(3),
        names={2: "peer0", 3: "eth0"},
    )
    assert found.gateway == "169.254.1.1"
    assert [route.words() for route in found.routes if route.protocol == "boot"] == [
        "default via 169.254.1.1",
        "10.5.0.0/16 via inet6 fe80::33 onlink",
        "10.6.0.0/16 nexthop via 169.254.1.1 dev eth0 weight 3 "
        "nexthop via 10.9.7.1 dev peer0 weight 20",
        "169.254.1.1",
        "fd05::/64 via fd00::44 metric 1024",
    ]


# ---------------------------------------------------------------- the link, addresses, neighbours


def test_an_uplink_without_anything_has_no_facts_but_its_own():
    found = describe(link=a_link(mtu=1450, address=bytes([2, 0, 0, 0, 0, 7])))
    assert (found.ifname, found.ifindex, found.mtu) == ("eth0", 2, 1450)
    assert found.address == "02:00:00:00:00:07"
    assert (found.local, found.prefixlen, found.gateway) == (None, None, None)
    assert (found.addresses, found.routes, found.neighbours) == ((), (), ())
    assert describe(link=a_link(mtu=None)).mtu == 0


def test_what_is_of_other_devices_is_left_out():
    found = describe(
        addresses=[lists.an_address("10.9.7.2", 24, ifindex=3)],
        routes=[lists.a_route("10.9.7.0/24", oif=3), lists.a_route("10.9.6.0/24", oif=None)],
        neighbours=[lists.a_neighbour("10.9.7.1", ifindex=3)],
    )
    assert (found.addresses, found.routes, found.neighbours) == ((), (), ())
    assert found.local is None


def test_the_first_ipv4_address_that_is_not_secondary_is_the_local_one():
    found = describe(
        addresses=[
            lists.an_address("fd00::2", 64),
            lists.an_address("10.9.8.3", 24, flags=uapi.IFA_F_SECONDARY),
            lists.an_address("10.9.8.2", 25),
            lists.an_address("10.9.9.2", 24),
        ]
    )
    assert (found.local, found.prefixlen) == ("10.9.8.2", 25)
    assert [each.local for each in found.addresses] == [
        "fd00::2",
        "10.9.8.3",
        "10.9.8.2",
        "10.9.9.2",
    ]


def test_an_address_has_all_keys():
    (found,) = describe(
        addresses=[
            lists.an_address("10.9.8.2", 32, far_end="10.9.8.1", broadcast="10.9.8.3", scope=254)
        ]
    ).addresses
    assert found == GuestAddress(
        family="inet",
        local="10.9.8.2",
        prefixlen=32,
        address="10.9.8.1",
        broadcast="10.9.8.3",
        scope="host",
    )


@pytest.mark.parametrize(
    "local, scope, is_kept",
    [
        ("fe80::2", 253, False),
        ("fd00::2", 0, True),
        ("::1", 254, True),
        ("169.254.7.7", 0, True),
        ("10.9.8.2", 253, True),
    ],
)
def test_of_the_link_local_addresses_only_those_of_ipv6_are_left_out(local, scope, is_kept):
    found = describe(addresses=[lists.an_address(local, 64 if ":" in local else 24, scope=scope)])
    assert len(found.addresses) == is_kept


@pytest.mark.parametrize("number, name", [(0, "global"), (200, "site"), (255, "nowhere"), (7, "7")])
def test_a_scope_has_iproute2s_name(number, name):
    (found,) = describe(addresses=[lists.an_address("10.9.8.2", 24, scope=number)]).addresses
    assert found.scope == name


def test_neighbours_are_the_permanent_ones_of_both_families():
    unknown = neighbour.neighbours(
        [build.received(uapi.RTM_NEWNEIGH, uapi.ndmsg.pack(7, 2, uapi.NUD_PERMANENT, 0, 0))]
    )
    found = describe(
        neighbours=[
            lists.a_neighbour("169.254.1.1"),
            lists.a_neighbour("10.9.8.9", state=0x02),
            lists.a_neighbour("10.9.8.8", state=0x40),
            lists.a_neighbour("fd00::1", None, state=uapi.NUD_PERMANENT | 0x02),
        ]
        + unknown
    )
    assert found.neighbours == (
        GuestNeighbour(dst="169.254.1.1", lladdr="02:00:00:00:00:01"),
        GuestNeighbour(dst="fd00::1", lladdr=None),
    )


# ---------------------------------------------------------------- routes


def test_a_route_has_all_keys():
    assert route_of(
        "10.9.0.0/16",
        gateway="10.9.8.1",
        src="10.9.8.2",
        metric=7,
        mtu=1450,
        protocol=4,
        scope=200,
        tos=0x10,
        flags=uapi.RTNH_F_ONLINK | 1,
    ) == GuestRoute(
        **{
            "family": "inet",
            "type": "unicast",
            "dst": "10.9.0.0/16",
            "gateway": "10.9.8.1",
            "protocol": "static",
            "scope": "site",
            "src": "10.9.8.2",
            "metric": 7,
            "mtu": 1450,
            "onlink": True,
            "tos": "0x10",
            "from": None,
            "nexthops": (),
        }
    )


def test_what_a_route_lacks_is_none():
    found = route_of()
    assert [found.gateway, found.src, found.metric, found.mtu, found.tos] == [None] * 5
    assert (found.onlink, found.nexthops) == (False, ())


@pytest.mark.parametrize(
    "prefix, dst",
    [
        (None, "default"),
        ("10.9.8.1/32", "10.9.8.1"),
        ("0.0.0.0/1", "0.0.0.0/1"),
        ("fd00::/64", "fd00::/64"),
        ("fd00::1/128", "fd00::1"),
        ("::/1", "::/1"),
        ("fe80::/9", "fe80::/9"),
        ("fec0::/10", "fec0::/10"),
        ("ff00::/8", "ff00::/8"),
        ("169.254.0.0/16", "169.254.0.0/16"),
    ],
)
def test_a_destination_is_written_as_iproute2_does(prefix, dst):
    assert route_of(prefix).dst == dst


def test_a_default_route_of_ipv6_is_of_that_family():
    assert (route_of(family=inet.AF_INET6).dst, route_of(family=inet.AF_INET6).family) == (
        "default",
        "inet6",
    )


@pytest.mark.parametrize("prefix", ["fe80::/64", "fe80::1/128", "fe80::/10", "febf::/16"])
def test_routes_to_link_local_destinations_are_left_out(prefix):
    assert routes_of(lists.a_route(prefix)) == ()


def test_a_prefix_without_an_address_is_that_of_0():
    payload = uapi.rtmsg.pack(10, 64, 0, 0, 254, 3, 0, 1, 0)
    payload += lists.wire.attribute_u32(uapi.RTA_OIF, 2)
    (route,) = inet.routes([build.received(uapi.RTM_NEWROUTE, payload)])
    assert [each.dst for each in routes_of(route)] == ["0/64"]


@pytest.mark.parametrize(
    "options",
    [{"table": 255}, {"table": 1000}, {"flags": uapi.RTM_F_CLONED}, {"family": 7}, {"oif": None}],
    ids=str,
)
def test_routes_of_other_tables_and_families_and_without_a_device_are_left_out(options):
    assert routes_of(lists.a_route(**options)) == ()


def test_a_gateway_may_be_of_the_other_family():
    assert route_of("10.9.0.0/16", gateway="fe80::1").gateway == "fe80::1"


def test_a_source_prefix_limits_a_route():
    found = route_of("fd05::/64", gateway="fd00::1", source="fd00::/48")
    assert getattr(found, "from") == "fd00::/48"
    assert getattr(route_of("fd05::/64"), "from") is None


def test_a_type_has_iproute2s_name():
    names = ["none", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole"]
    names += ["unreachable", "prohibit", "throw", "nat", "xresolve", "12", "13"]
    assert [route_of(type=number).type for number in range(14)] == names


# The file etc/iproute2/rt_protos of iproute2.
PROTOCOLS = """
0 unspec 1 redirect 2 kernel 3 boot 4 static 8 gated 9 ra 10 mrt 11 zebra 12 bird 13 dnrouted
14 xorp 15 ntk 16 dhcp 18 keepalived 42 babel 99 openr 186 bgp 187 isis 188 ospf 189 rip 192 eigrp
"""


def test_a_protocol_has_iproute2s_name():
    words = PROTOCOLS.split()
    names = dict(zip(map(int, words[::2]), words[1::2]))
    for number in range(256):
        assert route_of(protocol=number).protocol == names.get(number, str(number))


def test_several_next_hops_are_listed_and_the_route_itself_has_no_gateway():
    hops = [lists.a_hop(2, "10.9.8.1", 3), lists.a_hop(3, "10.9.7.1"), lists.a_hop(9, None, 1, 4)]
    (found,) = routes_of(lists.a_route(oif=None, hops=hops))
    assert (found.gateway, found.onlink) == (None, False)
    assert found.nexthops == (
        NextHop(gateway="10.9.8.1", dev="eth0", weight=3, onlink=False),
        NextHop(gateway="10.9.7.1", dev="net1", weight=1, onlink=False),
        NextHop(gateway=None, dev=None, weight=1, onlink=True),
    )


def test_several_next_hops_elsewhere_are_no_route_of_an_uplink():
    hops = [lists.a_hop(3, "10.9.8.1"), lists.a_hop(9, "10.9.7.1")]
    assert routes_of(lists.a_route(oif=None, hops=hops)) == ()


# ---------------------------------------------------------------- next hop objects


def test_objects_are_needed_if_a_route_of_the_main_table_has_no_next_hop_but_an_id():
    assert facts.needs_objects([lists.a_route(oif=None, object_id=9)])
    for usual in (
        lists.a_route(object_id=9),
        lists.a_route(oif=None),
        lists.a_route(oif=None, object_id=9, table=1000),
    ):
        assert not facts.needs_objects([usual])


def test_a_route_by_a_group_leads_through_each_of_its_members():
    known = [
        lists.an_object(1, 2, "10.9.8.1"),
        lists.an_object(2, 3, "10.9.7.1"),
        lists.an_object(3),
        lists.an_object(9, group=[(1, 5), (2, 1)]),
    ]
    (found,) = routes_of(
        lists.a_route(oif=None, object_id=9), lists.a_route(oif=None, object_id=3), objects=known
    )
    assert [(hop.gateway, hop.dev, hop.weight) for hop in found.nexthops] == [
        ("10.9.8.1", "eth0", 5),
        ("10.9.7.1", "net1", 1),
    ]


def test_an_object_that_is_missing_is_a_key_error():
    with pytest.raises(KeyError):
        routes_of(lists.a_route(oif=None, object_id=9))
    assert routes_of(lists.a_route(object_id=9))  # its next hop is listed


# ---------------------------------------------------------------- the gateway


def gateway_of(*routes):
    return describe(routes=routes).gateway


@pytest.mark.parametrize(
    "metrics, first", [((20, 10, 10), 1), ((20, None), 1), ((1, None), 1), ((0, None), 0)], ids=str
)
def test_the_gateway_is_that_of_the_default_route_with_the_lowest_metric(metrics, first):
    routes = [
        lists.a_route(gateway="10.9.8.%d" % number, metric=metric)
        for number, metric in enumerate(metrics)
    ]
    assert gateway_of(*routes) == "10.9.8.%d" % first


def test_of_several_next_hops_the_first_one_on_the_uplink_is_the_gateway():
    hops = [lists.a_hop(3, "10.9.7.1"), lists.a_hop(2, "10.9.8.1"), lists.a_hop(2, "10.9.8.9")]
    assert gateway_of(lists.a_route(oif=None, hops=hops)) == "10.9.8.1"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gateway": "fe80::1", "family": inet.AF_INET},
        {"gateway": "fd00::1"},
        {"gateway": "10.9.8.1", "type": 2},
        {"gateway": "10.9.8.1", "tos": 0x10},
        {"gateway": "10.9.8.1", "dst": "10.9.0.0/16"},
        {"oif": None, "hops": [lists.a_hop(2, "fe80::1")]},
    ],
    ids=str,
)
def test_there_may_be_no_ipv4_gateway(options):
    assert gateway_of(lists.a_route(**options)) is None
