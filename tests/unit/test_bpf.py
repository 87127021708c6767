# SPDX-License-Identifier: Apache-2.0
"""nlraw.bpf: the program passes all that the verdict may call an orphan, on either byte order."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import bpf as machine
from lib import build, golden
from nlraw import bpf, link, uapi, verdict, wire

NATIVE = uapi.sock_filter
ORDERS = [NATIVE, machine.LITTLE, machine.BIG]
orders = pytest.mark.parametrize("layout", ORDERS, ids=["native", "little", "big"])

# ---------------------------------------------------------------- events


def attribute(order, type, value):
    header = struct.pack(order + "HH", 4 + len(value), type)
    return header + value + bytes(-len(value) & 3)


def event(
    name=b"tap0_urunc",
    type=uapi.RTM_NEWLINK,
    carrier=0,
    up_count=1,
    kind=b"tun\0",
    mode=uapi.IFF_TAP,
    before=(),
    between=(),
    layout=NATIVE,
):
    """An event as a machine of that byte order has it; None leaves an attribute out.

    ``before`` and ``between`` are other attributes: pairs of type and value.
    """
    order = layout.format if isinstance(layout.format, str) else layout.format.decode()
    order = order[0]
    parts = [attribute(order, *each) for each in before]
    if name is not None:
        parts.append(attribute(order, uapi.IFLA_IFNAME, name + b"\0"))
    parts += [attribute(order, *each) for each in between]
    if carrier is not None:
        parts.append(attribute(order, uapi.IFLA_CARRIER, bytes([carrier])))
    if up_count is not None:
        count = struct.pack(order + "I", up_count)
        parts.append(attribute(order, uapi.IFLA_CARRIER_UP_COUNT, count))
    if kind is not None:
        info = attribute(order, uapi.IFLA_TUN_TYPE, bytes([mode]))
        nested = attribute(order, uapi.IFLA_INFO_KIND, kind)
        nested += attribute(order, uapi.IFLA_INFO_DATA, info)
        parts.append(attribute(order, uapi.IFLA_LINKINFO | uapi.NLA_F_NESTED, nested))
    payload = struct.pack(order + "BxHiII", 0, 1, 4, uapi.IFF_UP, 0) + b"".join(parts)
    return struct.pack(order + "IHHII", 16 + len(payload), type, 0, 0, 0) + payload


def passes(message, *patterns, fresh=False, layout=NATIVE):
    """True if the message passes the filter of these patterns; it passes whole or not at all."""
    patterns = patterns or ("tap*_urunc",)
    kept = machine.run(bpf.program(patterns, fresh, layout), message, layout)
    assert kept in (bpf.PASS, bpf.DROP)
    return kept == bpf.PASS


# ---------------------------------------------------------------- one at a time


@orders
def test_the_death_of_a_vmm_passes(layout):
    assert passes(event(layout=layout), layout=layout)


@orders
@pytest.mark.parametrize(
    "facts",
    [
        {"type": uapi.RTM_DELLINK},
        {"type": uapi.RTM_GETLINK},
        {"type": uapi.RTM_NEWLINK << 8},  # in the other byte order
        {"carrier": 1},
        {"carrier": 255},
        {"up_count": 0},
        {"kind": b"veth\0"},
        {"kind": b"tunl\0"},
        {"kind": b"tu\0"},
        {"kind": b"\0"},
        {"kind": None},
        {"name": b"veth0"},
        {"name": b"ta"},
        {"name": b"Tap0"},
        {"name": b""},
    ],
    ids=str,
)
def test_what_cannot_be_an_orphan_is_dropped(layout, facts):
    assert not passes(event(layout=layout, **facts), layout=layout)


@orders
@pytest.mark.parametrize(
    "facts",
    [
        {"carrier": None},
        {"up_count": None},
        {"up_count": 1 << 24},
        {"name": None},
        {"name": b"tap"},
        {"name": b"tapestry"},  # only the beginning is compared
        {"mode": uapi.IFF_TUN},  # a rare event needs no test
        {"before": [(uapi.IFLA_MTU, b"")]},
        {"before": [(29, bytes(number)) for number in range(20)]},
    ],
    ids=str,
)
def test_what_may_be_an_orphan_passes(layout, facts):
    assert passes(event(layout=layout, **facts), layout=layout)


@orders
def test_a_message_whose_attributes_the_kernel_cannot_read_passes(layout):
    header = event(layout=layout)[:32]
    assert passes(header, layout=layout)
    assert not passes(event(type=uapi.RTM_DELLINK, layout=layout)[:32], layout=layout)


@orders
def test_fresh_ones_pass_if_they_count(layout):
    for up_count in (0, 1, None):
        assert passes(event(up_count=up_count, layout=layout), fresh=True, layout=layout)
    assert not passes(event(up_count=0, carrier=1, layout=layout), fresh=True, layout=layout)


@orders
@pytest.mark.parametrize(
    "pattern, name, expected",
    [
        ("*", b"anything", True),
        ("?x", b"anything", True),
        ("*x", b"anything", True),
        ("t*", b"t", True),
        ("t*", b"tap0", True),
        ("t*", b"eth0", False),
        ("tap0?", b"tap0", True),  # the beginning fits, the visit decides
        ("tap0?", b"tap10", False),
        ("tap0", b"tap0", True),
        ("tap0", b"tap00", False),
        ("tap0", b"tap", False),
        ("tap", b"tap", True),
        ("tap", b"tap0", False),
        ("fourteen_bytes*", b"fourteen_bytes", True),
        ("fourteen_bytes*", b"fourteen_bytez", False),
        ("fifteen_bytes__*", b"fifteen_bytes__", True),
        ("fifteen_bytes__", b"fifteen_bytes__", True),
        ("fifteen_bytes__", b"fifteen_bytes_", False),
        ("sixteen_bytes___*", b"sixteen_bytes__", False),
        ("sixteen_bytes___", b"sixteen_bytes__", False),
        ("\u00e9*", b"\xc3\xa9", True),
        ("\u00e9*", b"\xc3\xa8", False),
        ("\udcff*", b"\xff0", True),
        ("\udcff*", b"\xfe0", False),
        ("t\udcff\udc80p*", b"t\xff\x80p0", True),
        ("\ud800*", b"\xed\xa0\x80", False),
    ],
)
def test_the_beginning_of_a_name_is_compared(layout, pattern, name, expected):
    assert passes(event(name=name, layout=layout), pattern, layout=layout) is expected


@orders
def test_one_of_several_patterns_is_enough(layout):
    patterns = "tap*_urunc", "kata", "q\u00e9mu*", "x?"
    for name in (b"tap7", b"kata", b"q\xc3\xa9mu-long-one", b"x"):
        assert passes(event(name=name, layout=layout), *patterns, layout=layout), name
    for name in (b"kata0", b"qemu", b"veth0", b"eth0", b"ta"):
        assert not passes(event(name=name, layout=layout), *patterns, layout=layout), name
    assert passes(event(name=b"eth0", layout=layout), *(patterns + ("?",)), layout=layout)


def test_the_default_pattern_takes_few_instructions():
    program = bpf.program([verdict.MATCH])
    assert len(machine.decoded(program)) == 44
    assert len(machine.decoded(bpf.program([verdict.MATCH], fresh=True))) == 36


@golden.needs_little_endian
@pytest.mark.parametrize(
    "name, expected",
    [
        ("tap-released-up", True),
        ("tap-released-down", True),
        ("tap-just-released", True),
        ("tap-queues-released", True),
        ("tap-fresh", False),
        ("tap-held-up", False),
        ("tap-held-down", False),
        ("tap-just-attached", False),
        ("veth", False),
        ("bridge", False),
        ("macvtap", False),
    ],
)
def test_captured_links_pass_or_do_not(name, expected):
    (message,) = [each for each in golden.messages(name) if each.type == uapi.RTM_NEWLINK]
    whole = message.data[message.start - 16 : message.end]
    assert passes(whole, "*") is expected
    assert passes(whole, "*", fresh=True) is (expected or name == "tap-fresh")


# ---------------------------------------------------------------- beginnings


@pytest.mark.parametrize(
    "patterns, expected",
    [
        ([], []),
        (["tap*_urunc"], [b"tap"]),
        (["tap0"], [b"tap0\0"]),
        (["tap*", "tap0", "ta?", "tb*"], [b"ta", b"tb"]),
        (["tap0", "tap00", "tap0*x"], [b"tap0"]),
        (["a*", "tb*", "tbx*", "tc*"], [b"a", b"tb", b"tc"]),
        (["*", "tap*"], [b""]),
        (["tap*", "?ap"], [b""]),
        (["b*", "a*", "b*"], [b"a", b"b"]),
        (["x" * 16, "y" * 16 + "*", "z*"], [b"z"]),
        (["\ud800"], []),
    ],
)
def test_beginnings(patterns, expected):
    assert bpf.beginnings(patterns) == expected


def test_a_beginning_is_cut_to_a_length():
    assert bpf.beginnings(["tap0_urunc", "tap0*", "ab"], 4) == [b"ab\0", b"tap0"]
    assert bpf.beginnings(["tap0_urunc", "ab"], 0) == [b""]


@orders
def test_all_names_pass_if_there_are_too_many_beginnings(layout):
    every = [chr(number) + "*" for number in range(1, 128) if chr(number) not in "*?"]
    other = event(name=b"\xff", layout=layout)
    assert passes(other, *every, layout=layout)
    assert not passes(other, *every[:60], layout=layout)


@orders
@pytest.mark.parametrize("count", [30, 100, 200, 1000])
def test_many_patterns_make_a_program_that_the_kernel_takes(layout, count):
    patterns = ["%04d-a-long-name" % number for number in range(count)]
    wanted = event(name=b"0007-a-long-nam", layout=layout)
    patterns = [pattern[:15] for pattern in patterns]
    program = bpf.program(patterns, layout=layout)
    assert len(machine.decoded(program, layout)) <= bpf.MOST
    assert passes(wanted, *patterns, layout=layout)
    others = [event(name=name, layout=layout) for name in (b"0007-b", b"eth0")]
    is_passed = [passes(each, *patterns, layout=layout) for each in others]
    assert is_passed == [count > 30, False]


# ---------------------------------------------------------------- properties

letters = st.text("ab\u00e9\udcff\ud800", max_size=17)
patterns = st.lists(
    st.one_of(
        st.builds(lambda a, b, c: a + b + c, letters, st.sampled_from("*?"), letters),
        letters.filter(bool),
        st.text("ab*?", min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=6,
)
others = st.lists(
    st.tuples(st.sampled_from([uapi.IFLA_MTU, 30, 52, 0x8012 + 20]), st.binary(max_size=9)),
    max_size=3,
)

FILLS = {"*": st.text("ab\u00e9", max_size=3), "?": st.sampled_from("ab\udcff")}


def fitting(data, pattern):
    """A name that fits the pattern, unless that is too long; sometimes another one."""
    if data.draw(st.integers(0, 4)) == 0:
        return data.draw(st.binary(max_size=15)).replace(b"\0", b"").replace(b"\n", b"")
    name = ""
    for char in pattern:
        name += data.draw(FILLS[char]) if char in FILLS else char
    return name.encode("utf-8", "replace" if "\ud800" in name else "surrogateescape")[:15]


@build.patient
@given(patterns, st.booleans(), others, others, st.sampled_from(ORDERS), st.data())
def test_no_event_of_an_orphan_is_dropped(patterns, fresh, before, between, layout, data):
    facts = {
        "name": fitting(data, data.draw(st.sampled_from(patterns))),
        "carrier": data.draw(st.sampled_from([0, 0, 0, None, 1])),
        "up_count": data.draw(st.sampled_from([1, 2**31, None, 0])),
        "kind": data.draw(st.sampled_from([b"tun\0", b"tun\0", b"tun", b"veth\0"])),
        "before": before,
        "between": between,
    }
    is_passed = passes(event(layout=layout, **facts), *patterns, fresh=fresh, layout=layout)

    (message,) = wire.messages(event(**facts))
    target = verdict.Target(patterns, spare_fresh=not fresh)
    found = link.Link(message)
    is_orphan = verdict.judge(found) == verdict.ORPHAN
    if is_orphan and target.fits(found.ifname) and not target.spares(found):
        assert is_passed

    # and passed is nothing but what has the beginning of one of them
    heads = [pattern.partition("*")[0].partition("?")[0] for pattern in patterns]
    begins = any(found.ifname.startswith(head) for head in heads)
    is_candidate = found.kind == "tun" and not found.carrier and begins
    if not fresh and found.carrier_up_count == 0:
        is_candidate = False
    assert is_candidate or not is_passed


@build.patient
@given(patterns, st.booleans(), st.sampled_from(ORDERS), st.data())
def test_bytes_that_are_cut_or_changed_pass_whole_or_not_at_all(patterns, fresh, layout, data):
    message = bytearray(event(layout=layout))
    for _ in range(data.draw(st.integers(0, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    passes(bytes(message[:cut]), *patterns, fresh=fresh, layout=layout)


@build.patient
@given(patterns, st.binary(max_size=120), st.sampled_from(ORDERS))
def test_any_bytes_pass_whole_or_not_at_all(patterns, message, layout):
    passes(message, *patterns, layout=layout)
