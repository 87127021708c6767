# SPDX-License-Identifier: Apache-2.0
"""Feed any bytes to everything in nlraw that reads bytes; make nearly right bytes of captures.

The contract: a value, or `Malformed` with an offset inside what was fed (`Lost` where the kernel
itself says so), never another exception, and never without end.
tests/unit/test_hostile_bytes.py does it some thousand times with a fixed seed,
tests/tools/fuzz.py guided by coverage for as long as one likes.
"""

import struct
import sys

from lib import build, golden
from nlraw import exchange, facts, inet, link, neighbour, nexthop, tc, uapi, verdict, wire
from nlraw.errors import Lost, Malformed
from nlraw.observe import snapshot_of
from nlraw.plan import is_dead, plan, plan_undo
from nlraw.snapshot import AttachmentPoint

FACTS = (
    "ifindex",
    "flags",
    "ifname",
    "address",
    "mtu",
    "group",
    "operstate",
    "carrier",
    "carrier_up_count",
    "kind",
)

# What an ERROR or DONE may answer. The last has attributes within attributes, for the path to the
# one that it blames.
REQUESTS = (
    link.get(4, "tap0_urunc"),
    link.dump("tun"),
    link.delete(4, "tap0_urunc"),
    link.create_veth("eth0", "peer0"),
    tc.create_redirect(2, uapi.TC_H_INGRESS_HANDLE, 4, "eth0"),
)


def corpus():
    """Datagrams to begin with: the captures, if the byte order is theirs, and what they lack."""
    made = [
        (uapi.RTM_NEWTFILTER, build.redirect_payload(2, "matchall", 4)),
        (uapi.RTM_NEWTFILTER, build.redirect_payload(2, "flower", 0, chain=3)),
        (uapi.RTM_NEWTFILTER, build.redirect_payload(2, "u32", 0)),
        (uapi.RTM_NEWLINK, build.link_payload(queues=1, disabled_queues=2, operstate=6)),
        (uapi.RTM_NEWQDISC, build.qdisc_payload(2, "clsact", ingress_block=7, egress_block=8)),
    ]
    seeds = [wire.message(type, uapi.NLM_F_MULTI, 1, payload, 1) for type, payload in made]
    if sys.byteorder == "little":
        seeds += [datagram for name in golden.names() for datagram in golden.datagrams(name)]
    return seeds


# ---------------------------------------------------------------- everything that reads bytes


def feed(data):
    """Hand some bytes to all of them.

    Return what broke the contract, as pairs of who it was and what it raised.
    """
    broken = []

    def attempt(name, function, *arguments):
        try:
            return function(*arguments)
        except Malformed as error:
            if not (
                isinstance(error.offset, int) and 0 <= error.offset <= len(data) and str(error)
            ):
                broken.append((name, error))
        except Exception as error:
            broken.append((name, error))
        return None

    found = attempt("messages", build.messages, data)
    if found is None:  # those before the one that is malformed
        found = attempt("messages", messages_before_the_first_bad_one, data) or []
    for request in REQUESTS:
        attempt("receive", receive, data, request)
    attempt("path", paths, data, 0)
    things = {"link": [], "qdisc": [], "filter": []}
    for message in found:
        for name, read in READERS.items():
            thing = attempt(name, read, message)
            if thing is not None:
                things[name].append(thing)
        for size in (0, uapi.ifaddrmsg.size, uapi.rtmsg.size, uapi.ifinfomsg.size, uapi.tcmsg.size):
            attempt("attributes", wire.Attributes, data, message.start + size, message.end)
        attempt("path", paths, data, message.start + uapi.ifinfomsg.size)
        attempt("routes", routes, [message])
        attempt("guest", guest, [message])
    for name, read in ROWS.items():
        attempt(name, read, found)
    attempt("chains", tc.chains, found)
    attempt("plan", planned, things["link"], things["qdisc"], things["filter"])
    return broken


def messages_before_the_first_bad_one(data):
    try:
        return build.messages(data)
    except Malformed as error:
        return build.messages(data[: error.offset])


def receive(data, request):
    """Read it as the answer to a request whose number is unknown; the sender is the kernel."""
    sequence, port = struct.unpack_from("=II", data.ljust(16, b"\0"), 8)
    conversation = exchange.Exchange([request, REQUESTS[2]], port, sequence)
    try:
        conversation.receive(data)
    except Lost:
        pass
    for reply in conversation.replies:
        assert reply.error is None or (0 < reply.error.errno < 4096 and str(reply.error))
        if reply.error is None:
            read_links(build.named(reply.answer()))
    return conversation.replies


def paths(data, start):
    for offset in (start + 4, start + 8, len(data) - 4, 0xFFFFFFFF, -16):
        wire.path(data, start, len(data), offset)


def read_link(message):
    found = link.Link(message)
    for name in FACTS:
        getattr(found, name)
    tun = found.tun()
    if tun is not None:
        tun.type, tun.queues, tun.disabled_queues
    repr(found), link.operstate_name(found.operstate), link.flag_names(found.flags)
    verdict.evidence(found), verdict.is_fresh(found), found.lower
    if verdict.judge(found) is not None:
        verdict.describe_tap(found)
        verdict.Target().fits(found.ifname)
    return found


def read_links(messages):
    return [read_link(message) for message in messages if message.type == uapi.RTM_NEWLINK]


def read_qdisc(message):
    found = tc.Qdisc(message)
    repr(found), found.ingress_block, found.egress_block
    return found


def read_filter(message):
    found = tc.Filter(message)
    (
        found.priority,
        found.protocol,
        found.chain,
        found.is_table,
        found.is_priority,
        found.matches_all,
        is_dead(found),
        repr(found),
    )
    for action in found.actions():
        action.kind, action.redirect, action.control, action.eaction
    return found


def routes(messages):
    """What a default route leads to is asked for next."""
    return [link.get(found.ifindex, "").payload for found in inet.default_routes(messages)]


def guest(messages):
    """What a guest would be configured with, if these were the addresses, routes and so on."""
    objects = nexthop.objects(messages)
    repr(objects)
    lists = (
        inet.addresses(messages),
        inet.routes_but_local(messages),
        neighbour.neighbours(messages),
    )
    facts.needs_objects(lists[1])
    for ifindex in (2, 3):
        (uplink,) = link.links([build.received(uapi.RTM_NEWLINK, build.link_payload(ifindex))])
        try:
            found = facts.describe_uplink(
                uplink, *lists, {2: "peer0", 3: "eth0"}, {each.id: each for each in objects}
            )
        except KeyError:  # an object that a route refers to is not among them
            continue
        for each in found.addresses + found.routes + found.neighbours:
            repr(each), each.words()


ANY = verdict.Target("*", "eth0", keep_in_use=True)


def planned(links, qdiscs, filters):
    """What a cleanup would send if these were the links, qdiscs and filters of a namespace.

    However bad the bytes: only what was judged an orphan is deleted, and elsewhere only redirects
    and an `ingress`.
    """
    seen = snapshot_of(links, ANY, [found.ifindex for found in links])
    points = [
        AttachmentPoint("eth0", qdisc, qdisc.handle, filters, number == 0, chains)
        for number, (qdisc, chains) in enumerate(zip(qdiscs, (None, (0, 7), ())))
    ]
    points.append(AttachmentPoint("block 7", None, 7, filters))
    seen = seen.with_tc(qdiscs, points)
    seen.keys(), seen.evidence(seen.in_use())
    doomed = [found.ifindex for found in seen.orphans(ANY)]
    for at_once in (False, True):
        made = plan(seen, ANY, at_once)
        check_sent(made.changes, doomed, 0)
        if made.is_whole and doomed:
            check_sent(made.by_group(7), doomed, 7)
    if links:
        for had_ingress in ((), {found.ifindex for found in links}):
            check_sent(plan_undo(seen, links[-1:], had_ingress), [], 0)
    return points


def check_sent(changes, doomed, group):
    sent = exchange.Exchange([change.request for change in changes], 1, 1).datagram()
    for change, message in zip(changes, build.messages(sent)):
        if message.type == uapi.RTM_DELLINK:
            asked = link.Link(message)
            assert (asked.group == group and not asked.ifindex) or asked.ifindex in doomed
        elif message.type == uapi.RTM_DELQDISC:
            asked = tc.Qdisc(message)
            assert asked.kind == "ingress" or asked.ifindex in doomed
        else:
            assert message.type == uapi.RTM_DELTFILTER
            assert change.request.object in ("eth0", "block 7")


READERS = {"link": read_link, "qdisc": read_qdisc, "filter": read_filter}
ROWS = {
    "links": link.links,
    "qdiscs": tc.qdiscs,
    "filters": tc.filters,
    "all routes": routes,
    "all of a guest": guest,
}


# ---------------------------------------------------------------- nearly right bytes

# Lengths and numbers at which something ends.
EDGES = (0, 1, 3, 4, 5, 8, 15, 16, 17, 0x7F, 0x80, 0xFF, 0x100, 0x3FFF, 0x7FFF, 0x8000, 0xFFFF)
WIDE = (0, 1, 2**31 - 1, 2**31, 2**32 - 4096, 2**32 - 1)


def mutate(data, random, others):
    """The same with a few things changed.

    ``random`` is a random.Random, ``others`` are what parts may be taken from.
    """
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        if not data:
            return bytes(random.choice(others))
        random.choice(CHANGES)(data, random, others)
    return bytes(data)


def change_byte(data, random, _):
    data[random.randrange(len(data))] = random.randrange(256)


def change_bit(data, random, _):
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def change_short(data, random, _):
    """Half a header of an attribute: its length, or its type."""
    at = random.randrange(0, len(data), 2)
    number = random.choice((random.choice(EDGES), len(data) - at, random.randrange(64)))
    data[at : at + 2] = struct.pack("=H", number & 0xFFFF)


def change_number(data, random, _):
    at = random.randrange(0, len(data), 4)
    data[at : at + 4] = struct.pack("=I", random.choice(WIDE + (len(data) - at,)))


def cut(data, random, _):
    del data[random.randrange(len(data)) :]


def take_out(data, random, _):
    at = random.randrange(0, len(data), 4)
    del data[at : at + random.choice((1, 4, 8, 20))]


def repeat(data, random, _):
    at = random.randrange(0, len(data), 4)
    part = data[at : at + random.choice((4, 8, 36, 200))]
    data[at:at] = part


def put_in(data, random, others):
    other = random.choice(others)
    at = random.randrange(0, len(other) or 1, 4)
    place = random.randrange(0, len(data), 4)
    data[place:place] = other[at : at + random.choice((4, 12, 40, 400))]


def append(data, random, others):
    data += bytes(-len(data) % 4) + random.choice(others)


def mend(data, random, _):
    """Let the lengths of messages be true again, and one of them that of all that is left."""
    at = 0
    while len(data) - at >= 16:
        (length,) = struct.unpack_from("=I", data, at)
        if not 16 <= length <= len(data) - at or random.randrange(4) == 0:
            length = len(data) - at
            struct.pack_into("=I", data, at, length)
        at += wire.align(length)


CHANGES = (
    change_byte,
    change_bit,
    change_short,
    change_short,
    change_number,
    cut,
    take_out,
    repeat,
    put_in,
    append,
    mend,
    mend,
)
