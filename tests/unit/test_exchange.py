# SPDX-License-Identifier: Apache-2.0
"""nlraw.exchange: which replies answer which request, and what a refusal says."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build, golden
from nlraw import link, uapi, wire
from nlraw.errors import Lost, Malformed, Refused
from nlraw.exchange import Exchange, Request

PORT = 4321
FIRST = 1000

GET = Request(uapi.RTM_GETLINK, 0, bytes(16), 16, "read link", "tap0")
CHANGE = Request(uapi.RTM_DELLINK, uapi.NLM_F_ACK, bytes(16), 16, "delete link", "tap0")
DUMP = Request(uapi.RTM_GETLINK, uapi.NLM_F_DUMP, bytes(16), 16, "list links", "tun")


def message(type, payload=b"", flags=0, sequence=FIRST, port=PORT):
    return wire.message(type, flags, sequence, payload, port)


def item(payload=b"item", flags=uapi.NLM_F_MULTI, sequence=FIRST, port=PORT):
    return message(uapi.RTM_NEWLINK, payload, flags, sequence, port)


def done(code=0, flags=uapi.NLM_F_MULTI, sequence=FIRST, extra=b""):
    return message(uapi.NLMSG_DONE, struct.pack("=i", -code) + extra, flags, sequence)


def error(code, flags=uapi.NLM_F_CAPPED, sequence=FIRST, request=None, extra=b""):
    if request is None:
        request = uapi.nlmsghdr.pack(32, uapi.RTM_DELLINK, 5, sequence, 0)
    return message(uapi.NLMSG_ERROR, build.refusal_payload(code, request, extra), flags, sequence)


def words(text):
    return wire.attribute_string(uapi.NLMSGERR_ATTR_MSG, text)


def offset(number):
    return wire.attribute_u32(uapi.NLMSGERR_ATTR_OFFS, number)


def begin(*requests, sequence=FIRST):
    return Exchange(requests, PORT, sequence)


def answered(request, *datagrams):
    """The reply to one request after those datagrams."""
    conversation = begin(request)
    for datagram in datagrams:
        conversation.receive(datagram)
    assert conversation.is_finished
    return conversation.replies[0]


def payloads(reply):
    return [each.payload for each in build.named(reply.messages)]


# ---------------------------------------------------------------- what is sent


def test_a_request_has_its_flag_and_is_shown_in_full_in_its_repr():
    assert GET.flags == uapi.NLM_F_REQUEST
    assert repr(CHANGE) == "Request(delete link tap0: type=17, flags=0x5, payload=%s)" % ("00" * 16)


def test_requests_travel_in_one_datagram_numbered_from_the_first():
    sent = build.messages(begin(GET, CHANGE, DUMP).datagram())
    assert [(each.type, each.flags, each.sequence, each.port) for each in sent] == [
        (uapi.RTM_GETLINK, 0x001, FIRST, 0),
        (uapi.RTM_DELLINK, 0x005, FIRST + 1, 0),
        (uapi.RTM_GETLINK, 0x301, FIRST + 2, 0),
    ]
    assert [each.payload for each in sent] == [bytes(16)] * 3


def test_a_conversation_without_a_request_is_finished_before_it_begins():
    assert begin(GET).is_finished is False
    assert begin().is_finished is True


def test_only_both_dump_bits_make_a_dump():
    assert DUMP.is_dump
    assert not Request(uapi.RTM_NEWLINK, uapi.NLM_F_EXCL, b"", 0, "", "").is_dump
    assert not GET.is_dump


def test_sequence_numbers_wrap_at_2_to_the_32():
    conversation = begin(CHANGE, CHANGE, sequence=0xFFFFFFFF)
    assert [each.sequence for each in build.messages(conversation.datagram())] == [0xFFFFFFFF, 0]
    assert conversation.receive(error(0, sequence=0))
    assert not conversation.is_finished
    assert conversation.receive(error(0, sequence=0xFFFFFFFF))
    assert conversation.is_finished


# ---------------------------------------------------------------- when an answer is whole


def test_a_get_is_answered_by_its_one_message():
    reply = answered(GET, item(flags=0))
    assert payloads(reply) == [b"item"]
    assert reply.answer() is reply.messages


def test_a_change_is_answered_by_its_acknowledgement():
    reply = answered(CHANGE, error(0))
    assert reply.answer() == [] and reply.error is None


def test_a_change_that_is_echoed_is_answered_by_its_acknowledgement_alone():
    conversation = begin(CHANGE)
    conversation.receive(item(flags=0))
    assert not conversation.is_finished
    conversation.receive(error(0))
    assert conversation.is_finished and payloads(conversation.replies[0]) == [b"item"]


def test_a_dump_over_several_datagrams_ends_with_done():
    conversation = begin(DUMP)
    for datagram in (item(b"1") + item(b"2"), item(b"3"), b""):
        conversation.receive(datagram)
        assert not conversation.is_finished
    conversation.receive(done())
    assert conversation.is_finished
    assert payloads(conversation.replies[0]) == [b"1", b"2", b"3"]


def test_a_dump_goes_on_after_a_message_that_is_not_marked_as_one_of_several():
    reply = answered(DUMP, item(b"1", flags=0) + item(b"2") + done())
    assert payloads(reply) == [b"1", b"2"]


def test_a_dump_of_nothing_is_a_done_alone():
    assert answered(DUMP, done()).answer() == []


def test_a_dump_that_asked_for_an_ack_goes_on_after_it():
    request = Request(uapi.RTM_GETLINK, uapi.NLM_F_DUMP | uapi.NLM_F_ACK, b"", 0, "", "")
    assert payloads(answered(request, error(0) + item() + done())) == [b"item"]


def test_a_done_without_its_number_is_success():
    assert answered(DUMP, message(uapi.NLMSG_DONE, b"", uapi.NLM_F_MULTI)).error is None


def test_nothing_is_taken_after_the_end_of_an_answer():
    conversation = begin(CHANGE, CHANGE)
    conversation.receive(error(0))
    assert not conversation.receive(error(errno.EPERM) + item())
    assert conversation.replies[0].error is None and not conversation.replies[0].messages


# ---------------------------------------------------------------- whose messages count


@pytest.mark.parametrize(
    "sequence, port",
    [(FIRST - 1, PORT), (FIRST + 1, PORT), (0, PORT), (FIRST, PORT + 1), (FIRST, 0)],
)
def test_messages_of_another_sequence_or_port_are_skipped(sequence, port):
    conversation = begin(DUMP)
    for type in (uapi.RTM_NEWLINK, uapi.NLMSG_DONE, uapi.NLMSG_ERROR, uapi.NLMSG_OVERRUN):
        assert (
            conversation.receive(message(type, b"?", uapi.NLM_F_DUMP_INTR, sequence, port)) is False
        )
    reply = conversation.replies[0]
    assert not conversation.is_finished and not reply.messages and not reply.interrupted


def test_a_late_answer_ahead_of_ours_in_one_datagram_is_skipped():
    conversation = begin(GET)
    assert conversation.receive(item(b"late", flags=0, sequence=FIRST - 1) + item(b"ours", flags=0))
    assert payloads(conversation.replies[0]) == [b"ours"]


def test_an_empty_datagram_is_not_for_us():
    assert not begin(GET).receive(b"")


def test_a_noop_is_taken_and_adds_nothing():
    conversation = begin(GET)
    assert conversation.receive(message(uapi.NLMSG_NOOP))
    assert not conversation.is_finished and not conversation.replies[0].messages


@pytest.mark.parametrize("type", [0, 5, 15, 17, 99, 0xFFFF])
def test_messages_of_unknown_types_pass_through(type):
    (found,) = build.named(answered(GET, message(type, b"payload")).messages)
    assert (found.type, found.payload) == (type, b"payload")


# ---------------------------------------------------------------- several requests


PIPELINE = [
    item(b"link", flags=0),
    error(errno.ENODEV, sequence=FIRST + 1),
    item(b"1", sequence=FIRST + 2),
    item(b"2", sequence=FIRST + 2),
    done(sequence=FIRST + 2),
]


@pytest.mark.parametrize(
    "datagrams", [PIPELINE, [b"".join(PIPELINE)], [b"".join(PIPELINE[:3]), b"".join(PIPELINE[3:])]]
)
def test_pipelined_requests_are_answered_in_one_datagram_or_many(datagrams):
    conversation = begin(GET, CHANGE, DUMP)
    for number, datagram in enumerate(datagrams):
        assert not conversation.is_finished, number
        assert conversation.receive(datagram)
    assert conversation.is_finished
    one, two, three = conversation.replies
    assert payloads(one) == [b"link"]
    assert two.error.errno == errno.ENODEV
    assert payloads(three) == [b"1", b"2"]


def test_a_refusal_stops_its_own_request_and_no_other():
    conversation = begin(CHANGE, CHANGE)
    conversation.receive(error(errno.EBUSY) + error(0, sequence=FIRST + 1))
    assert [reply.error and reply.error.errno for reply in conversation.replies] == [
        errno.EBUSY,
        None,
    ]


def test_replies_that_come_out_of_order_find_their_requests():
    conversation = begin(GET, GET)
    conversation.receive(item(b"second", flags=0, sequence=FIRST + 1) + item(b"first", flags=0))
    assert [payloads(reply) for reply in conversation.replies] == [[b"first"], [b"second"]]


# ---------------------------------------------------------------- torn lists


@pytest.mark.parametrize("torn", [0, 1, 2])
def test_the_mark_of_an_interrupted_dump_counts_on_any_message(torn):
    marks = [uapi.NLM_F_DUMP_INTR if number == torn else 0 for number in range(3)]
    datagrams = [
        item(b"1", uapi.NLM_F_MULTI | marks[0]),
        item(b"2", uapi.NLM_F_MULTI | marks[1]),
        done(flags=uapi.NLM_F_MULTI | marks[2]),
    ]
    reply = answered(DUMP, *datagrams)
    assert reply.interrupted and payloads(reply) == [b"1", b"2"]


def test_a_dump_without_the_mark_is_whole():
    assert not answered(DUMP, item(), done()).interrupted


def test_the_mark_belongs_to_the_request_whose_sequence_it_has():
    conversation = begin(GET, DUMP)
    conversation.receive(item(flags=0) + done(flags=uapi.NLM_F_DUMP_INTR, sequence=FIRST + 1))
    assert [reply.interrupted for reply in conversation.replies] == [False, True]


def test_an_overrun_loses_the_answer():
    with pytest.raises(Lost) as caught:
        begin(DUMP).receive(item() + message(uapi.NLMSG_OVERRUN))
    assert caught.value.errno == errno.ENOBUFS
    assert str(caught.value) == "list links tun: the kernel reports lost data (NLMSG_OVERRUN)"


# ---------------------------------------------------------------- refusals


def test_a_refusal_is_raised_with_what_was_being_done():
    reply = answered(CHANGE, error(errno.EPERM))
    with pytest.raises(Refused) as caught:
        reply.answer()
    assert (caught.value.errno, caught.value.step, caught.value.object) == (
        errno.EPERM,
        "delete link",
        "tap0",
    )
    assert (caught.value.words, caught.value.attribute) == ("", ())
    assert isinstance(caught.value, OSError)


def test_an_error_in_mid_dump_ends_it_as_a_failure():
    reply = answered(DUMP, item(), error(errno.ENOBUFS))
    assert reply.error.errno == errno.ENOBUFS
    with pytest.raises(Refused):
        reply.answer()


def test_a_done_with_an_error_number_ends_the_dump_as_a_failure():
    assert answered(DUMP, item() + done(errno.EINVAL)).error.errno == errno.EINVAL


def test_the_kernels_words_are_found_behind_a_capped_request():
    refused = answered(
        CHANGE,
        error(errno.EINVAL, uapi.NLM_F_CAPPED | uapi.NLM_F_ACK_TLVS, extra=words("No such thing")),
    ).error
    assert refused.words == "No such thing"
    assert str(refused) == "delete link tap0: No such thing"


def test_the_kernels_words_are_found_behind_a_whole_request():
    whole = wire.message(uapi.RTM_DELLINK, 5, FIRST, b"sixteen bytes !!" + b"odd")
    # the length of a request need not be aligned; what follows is
    whole = struct.pack("=I", 35) + whole[4:]
    refused = answered(
        CHANGE,
        error(errno.EINVAL, uapi.NLM_F_ACK_TLVS, request=whole, extra=words("No such thing")),
    ).error
    assert refused.words == "No such thing"


def test_the_kernels_words_are_found_behind_a_request_of_a_header_alone_or_are_none():
    header = uapi.nlmsghdr.pack(16, uapi.RTM_DELLINK, 5, FIRST, 0)
    for extra, said in ((words("no"), "no"), (b"", "EINVAL"), (offset(999), "EINVAL")):
        reply = answered(
            CHANGE, error(errno.EINVAL, uapi.NLM_F_ACK_TLVS, request=header, extra=extra)
        )
        assert str(reply.error) == "delete link tap0: " + said


def test_the_kernels_words_are_found_in_a_done():
    refused = answered(
        DUMP, done(errno.EINVAL, uapi.NLM_F_MULTI | uapi.NLM_F_ACK_TLVS, extra=words("Bad dump"))
    ).error
    assert (refused.errno, refused.words) == (errno.EINVAL, "Bad dump")


def test_what_stands_behind_a_request_is_not_read_unless_the_flag_says_so():
    assert answered(CHANGE, error(errno.EINVAL, extra=words("ignored"))).error.words == ""
    assert answered(DUMP, done(errno.EINVAL, extra=words("ignored"))).error.words == ""


def test_unknown_attributes_of_an_extended_ack_are_ignored():
    extra = wire.attribute(4, b"policy") + words("No") + wire.attribute(77, b"?")
    assert answered(CHANGE, error(errno.EINVAL, 0x300, extra=extra)).error.words == "No"


def test_words_beside_success_are_a_warning_and_no_failure():
    assert answered(CHANGE, error(0, 0x300, extra=words("A warning"))).error is None
    assert answered(DUMP, done(0, 0x202, extra=words("A warning"))).error is None


# The request of the captures refusal-attribute-*: the attribute 18.2.1 stands at 56, its header
# included.
NESTED = Request(
    uapi.RTM_NEWLINK,
    uapi.NLM_F_ACK,
    bytes(16)
    + wire.attribute_string(3, "v0")
    + wire.attribute_nested(
        18, wire.attribute(1, b"veth"), wire.attribute_nested(2, wire.attribute(1, b"four"))
    ),
    16,
    "create veth",
    "v0",
)


@pytest.mark.parametrize(
    "at, path, said",
    [
        (32, (3,), " (attribute 3)"),
        (40, (18,), " (attribute 18)"),
        (56, (18, 2, 1), " (attribute 18.2.1)"),
        (33, (), ""),
        (4000, (), ""),
        (0, (), ""),
    ],
)
def test_the_offending_attribute_is_named_by_its_path(at, path, said):
    refused = answered(NESTED, error(errno.ERANGE, 0x300, extra=words("Bad") + offset(at))).error
    assert refused.attribute == path
    assert str(refused) == "create veth v0: Bad" + said


# ---------------------------------------------------------------- malformed


@pytest.mark.parametrize(
    "datagram, at",
    [
        (b"\0" * 15, 0),
        (item() + b"\0" * 16, 20),
        (message(uapi.NLMSG_ERROR, b"\0\0\0"), 16),
        (message(uapi.NLMSG_ERROR, b""), 16),
        (error(-1), 16),
        (done(-22), 16),
        (error(4096), 16),
        (error(0x80000000), 16),
        (item() + error(-1), 36),
        (error(errno.EINVAL, 0x200, request=struct.pack("=I", 15) + bytes(12)), 20),
        (error(errno.EINVAL, 0x200, request=struct.pack("=I", 17) + bytes(12)), 20),
        (error(errno.EINVAL, 0x200, request=struct.pack("=I", 0xFFFFFFFF) + bytes(12)), 20),
        (error(errno.EINVAL, 0x200, request=b"short"), 20),
        (error(errno.EINVAL, 0x300, extra=b"\3\0"), 36),
        (error(errno.EINVAL, 0x300, extra=words("ok") + bytes(4)), 44),
        (error(errno.EINVAL, 0x300, extra=wire.attribute(uapi.NLMSGERR_ATTR_OFFS, b"\0")), 40),
        (done(errno.EINVAL, 0x202, extra=bytes(4)), 20),
    ],
)
def test_malformed_bytes_raise_with_their_offset(datagram, at):
    with pytest.raises(Malformed) as caught:
        begin(DUMP).receive(datagram)
    assert caught.value.offset == at


def test_the_greatest_error_number_is_one():
    assert answered(CHANGE, error(4095)).error.errno == 4095


@pytest.mark.parametrize(
    "datagram, said",
    [
        (error(-5), "5 is not an error number, at offset 16"),
        (
            error(errno.EINVAL, 0x200, request=uapi.nlmsghdr.pack(15, 17, 5, FIRST, 0)),
            "the request quoted in an ERROR has a length of 15 bytes, at offset 20",
        ),
    ],
)
def test_what_is_malformed_is_said(datagram, said):
    with pytest.raises(Malformed) as caught:
        begin(DUMP).receive(datagram)
    assert str(caught.value) == "parse netlink message: " + said


# ---------------------------------------------------------------- any bytes


def feed(datagram):
    """What an exchange makes of any bytes: replies, or one of the two errors it may raise."""
    conversation = Exchange([GET, CHANGE, DUMP, NESTED], 0, 0)
    try:
        conversation.receive(datagram)
    except (Malformed, Lost):
        return
    for reply in conversation.replies:
        assert reply.error is None or (reply.error.errno > 0 and isinstance(str(reply.error), str))


small = st.integers(0, 20)
near_misses = st.lists(
    st.tuples(
        small,
        st.one_of(small, st.sampled_from([0x100, 0x200, 0x300, 0x302])),
        st.integers(0, 4),
        st.binary(max_size=48),
    ),
    max_size=6,
).map(
    lambda row: b"".join(
        wire.message(type, flags, sequence, payload) for type, flags, sequence, payload in row
    )
)


@build.patient
@given(st.one_of(st.binary(max_size=200), near_misses))
def test_any_bytes_are_replies_or_malformed(datagram):
    feed(datagram)


@build.patient
@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.data())
def test_a_conversation_is_the_same_however_it_is_cut_into_datagrams(kinds, data):
    requests = [(GET, CHANGE, DUMP)[kind] for kind in kinds]
    row = []
    for number, request in enumerate(requests):
        sequence = FIRST + number
        if request is DUMP:
            row += [
                item(b"a", sequence=sequence),
                item(b"b", sequence=sequence),
                done(sequence=sequence),
            ]
        else:
            row.append(item(b"one", 0, sequence) if request is GET else error(0, sequence=sequence))
    conversation = begin(*requests)
    while row:
        count = data.draw(st.integers(1, len(row)))
        assert not conversation.is_finished
        assert conversation.receive(b"".join(row[:count]))
        row = row[count:]
    assert conversation.is_finished
    expected = {id(GET): [b"one"], id(CHANGE): [], id(DUMP): [b"a", b"b"]}
    assert [payloads(reply) for reply in conversation.replies] == [
        expected[id(request)] for request in requests
    ]


# ---------------------------------------------------------------- captures


@golden.needs_little_endian
@pytest.mark.parametrize("name", ["ack", "ack-uncapped"])
def test_a_captured_acknowledgement(name):
    (reply,) = golden.play(name, link.set_up(2, "eth0"))
    assert reply.answer() == []


@golden.needs_little_endian
@pytest.mark.parametrize(
    "name, words, attribute",
    [
        ("refusal-attribute-plain", "", ()),
        ("refusal-attribute-capped", "", ()),
        ("refusal-attribute-extended", "Attribute failed policy validation", (18, 2, 1)),
        ("refusal-attribute-both", "Attribute failed policy validation", (18, 2, 1)),
    ],
)
def test_a_captured_refusal_in_each_layout(name, words, attribute):
    (reply,) = golden.play(name, NESTED)
    assert (reply.error.errno, reply.error.words, reply.error.attribute) == (
        errno.ERANGE,
        words,
        attribute,
    )


@golden.needs_little_endian
@pytest.mark.parametrize(
    "name, request_, number, words",
    [
        ("refusal-plain", CHANGE, errno.ENODEV, ""),
        ("refusal-wordless", GET, errno.ENODEV, ""),
        ("refusal-qdisc", CHANGE, errno.ENOENT, "Cannot find specified qdisc on specified device"),
        ("done-refusal", DUMP, errno.EINVAL, "Invalid target network namespace id"),
        ("done-refusal-plain", DUMP, errno.EINVAL, ""),
    ],
)
def test_a_captured_refusal_and_its_words(name, request_, number, words):
    (reply,) = golden.play(name, request_)
    assert (reply.error.errno, reply.error.words) == (number, words)


@golden.needs_little_endian
def test_captured_replies_to_requests_in_one_datagram():
    uplink, taps = golden.play("look", link.find("eth0"), link.dump("tun"))
    assert [len(uplink.answer()), len(taps.answer())] == [1, 1]
    deleted, missing = golden.play("pipeline", CHANGE, CHANGE)
    assert deleted.answer() == [] and missing.error.errno == errno.ENODEV


@golden.needs_little_endian
def test_a_captured_dump_of_several_datagrams():
    assert len(golden.datagrams("links-all")) > 2
    (reply,) = golden.play("links-all", link.dump())
    assert len(reply.answer()) == 7 and not reply.interrupted


@golden.needs_little_endian
@build.patient
@given(st.sampled_from(golden.names()), st.data())
def test_a_capture_with_bytes_changed_gives_replies_or_malformed(name, data):
    datagram = bytearray(data.draw(st.sampled_from(golden.datagrams(name))))
    for _ in range(data.draw(st.integers(1, 4))):
        datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    first = uapi.nlmsghdr.unpack_from(bytes(datagram))
    conversation = Exchange([NESTED, GET, DUMP], first[4], first[3])
    try:
        conversation.receive(bytes(datagram[: data.draw(st.integers(0, len(datagram)))]))
    except (Malformed, Lost):
        pass


# ---------------------------------------------------------------- counts


def test_messages_are_counted_those_of_others_too():
    ours = wire.message(uapi.RTM_NEWQDISC, uapi.NLM_F_MULTI, FIRST, bytes(20), PORT)
    foreign = wire.message(uapi.RTM_NEWQDISC, uapi.NLM_F_MULTI, FIRST + 7, bytes(20), PORT)
    done = wire.message(uapi.NLMSG_DONE, uapi.NLM_F_MULTI, FIRST, bytes(4), PORT)
    conversation = begin(link.dump())
    counts = [conversation.received]
    for datagram in (ours + ours, foreign, foreign + ours, done):
        conversation.receive(datagram)
        counts.append(conversation.received)
    assert counts == [0, 2, 3, 5, 6] and conversation.is_finished
