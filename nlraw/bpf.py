# SPDX-License-Identifier: Apache-2.0
"""The socket filter of `watch`: it passes link events that may be about an orphan. Pure.

The kernel runs the program once for each event and socket, before it queues the event. It passes

    RTM_NEWLINK
    of a name that begins like one of the patterns
    without a carrier (IFLA_CARRIER 0 or absent)
    after a second open (IFLA_CARRIER_UP_COUNT above 0 or absent), unless fresh TAPs count
    of kind "tun"

No removal is decided here, so an event passes if in doubt. A message in which the kernel finds no
attribute passes too: it cannot search a buffer in pieces (bpf_skb_get_nlattr()). A result
other than 0 and 0xFFFFFFFF would truncate the event for every socket that receives it, in the pod
too (sk_filter_trim_cap()).

A program is an array of struct sock_filter. It has two registers: A, into which values are loaded
and which comparisons use; X, an index or the type of an attribute. A jump counts the instructions
that it skips, at most 255 after a comparison. A load beyond the end of the message ends the program
with 0. Source: Documentation/networking/filter.rst; net/core/filter.c.
"""

from . import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _struct import Struct
    from typing import List, Sequence, Tuple

    Code = List[Tuple[int, int, int, int]]  # code, jt, jf, k

PASS, DROP = 0xFFFFFFFF, 0

# The most instructions. The kernel accepts BPF_MAXINSNS, but it charges the socket for the longer
# program into which it converts them, and the limit of a socket may be 20 KiB (optmem_max).
MOST = 512

_TYPE = 4  # the offset of nlmsg_type
_ATTRIBUTES = uapi.nlmsghdr.size + uapi.ifinfomsg.size  # the offset of the first attribute
_VALUE = uapi.nlattr.size  # the offset of a value in its attribute

_LOAD_WORD = uapi.BPF_LD | uapi.BPF_W | uapi.BPF_IND
_JUMP_IF_EQUAL = uapi.BPF_JMP | uapi.BPF_JEQ | uapi.BPF_K
_RETURN = uapi.BPF_RET | uapi.BPF_K
_TO_INDEX = (uapi.BPF_MISC | uapi.BPF_TAX, 0, 0, 0)


def program(
    patterns: "Sequence[str]", fresh: bool = False, layout: "Struct" = uapi.sock_filter
) -> bytes:
    """The filter for TAPs whose name fits one of the patterns (see `verdict.matches`).

    ``fresh``: pass events of fresh TAPs too. ``layout`` is that of an instruction, in the byte
    order of the machine. If there are very many patterns, shorter beginnings are compared.
    """
    rest = _carrier() + ([] if fresh else _up_count()) + _kind()
    length = uapi.IFNAMSIZ
    code = _type(layout) + _name(beginnings(patterns, length)) + rest
    while len(code) > MOST:
        length //= 4
        code = _type(layout) + _name(beginnings(patterns, length)) + rest
    return b"".join([layout.pack(*instruction) for instruction in code])


def beginnings(patterns: "Sequence[str]", length: int = uapi.IFNAMSIZ) -> "List[bytes]":
    """The beginnings of all names that fit one of the patterns, at most ``length`` bytes each.

    A name ends with a NUL. ``[b""]`` stands for every name, an empty list for none.
    """
    found = set()
    for pattern in patterns:
        literal = pattern.partition("*")[0].partition("?")[0]
        try:
            data = literal.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            continue
        if len(data) < uapi.IFNAMSIZ:
            found.add((data + b"\0" if literal == pattern else data)[:length])
    kept: List[bytes] = []
    for data in sorted(found):  # a beginning sorts right before the longer ones that start with it
        if not kept or not data.startswith(kept[-1]):
            kept.append(data)
    return kept


# ---------------------------------------------------------------- parts of the program


def _type(layout: "Struct") -> "Code":
    """Drop every message but RTM_NEWLINK. A load reads numbers in network byte order."""
    type = int.from_bytes(layout.pack(uapi.RTM_NEWLINK, 0, 0, 0)[:2], "big")
    return [(uapi.BPF_LD | uapi.BPF_H | uapi.BPF_ABS, 0, 0, _TYPE)] + _drop_unless(type)


def _name(names: "Sequence[bytes]") -> "Code":
    """Drop a name that begins like none of these; pass a message without a name."""
    blocks = [_beginning(name) for name in names]
    left = sum(map(len, blocks)) + len(blocks) + 1  # each jump out, and the last instruction
    code = _find(uapi.IFLA_IFNAME) + [(_JUMP_IF_EQUAL, 0, 1, 0), (_RETURN, 0, 0, PASS), _TO_INDEX]
    for block in blocks:
        left -= len(block) + 1
        code += block + [(uapi.BPF_JMP | uapi.BPF_JA, 0, 0, left)]
    return code + [(_RETURN, 0, 0, DROP)]


def _beginning(name: bytes) -> "Code":
    """Compare a name, four bytes at a time; skip one more instruction if it differs.

    A word is loaded only if the name did not end before, so the padded attribute contains it.
    """
    code: Code = []
    for at in range(0, len(name), 4):
        part = name[at : at + 4]
        code.append((_LOAD_WORD, 0, 0, _VALUE + at))
        if len(part) < 4:
            mask = _word(b"\xff" * len(part))
            code.append((uapi.BPF_ALU | uapi.BPF_AND | uapi.BPF_K, 0, 0, mask))
        code.append((_JUMP_IF_EQUAL, 0, 0, _word(part)))
    return [
        (each[0], 0, len(code) - at, each[3]) if each[0] == _JUMP_IF_EQUAL else each
        for at, each in enumerate(code)
    ]


def _carrier() -> "Code":
    """Drop a link with a carrier."""
    load = (uapi.BPF_LD | uapi.BPF_B | uapi.BPF_IND, 0, 0, _VALUE)
    return _if_found(uapi.IFLA_CARRIER, [load] + _drop_unless(0))


def _up_count() -> "Code":
    """Drop a TAP that never had a second open."""
    load = (_LOAD_WORD, 0, 0, _VALUE)
    return _if_found(uapi.IFLA_CARRIER_UP_COUNT, [load] + _drop_if(0))


def _kind() -> "Code":
    """Pass a link of kind "tun", and drop any other: the last part."""
    nested = _ancillary(uapi.SKF_AD_NLATTR_NEST, uapi.IFLA_INFO_KIND)
    load = (_LOAD_WORD, 0, 0, _VALUE)
    return (
        _find(uapi.IFLA_LINKINFO)
        + _drop_if(0)
        + nested
        + _drop_if(0)
        + [_TO_INDEX, load]
        + _drop_unless(_word(b"tun"))
        + [(_RETURN, 0, 0, PASS)]
    )


def _find(type: int) -> "Code":
    """Load the offset of an attribute of the message; 0 if there is none."""
    start = (uapi.BPF_LD | uapi.BPF_W | uapi.BPF_IMM, 0, 0, _ATTRIBUTES)
    return [start] + _ancillary(uapi.SKF_AD_NLATTR, type)


def _ancillary(function: int, type: int) -> "Code":
    """Search from offset A on, or in the attribute at A, for an attribute of a type."""
    return [
        (uapi.BPF_LDX | uapi.BPF_W | uapi.BPF_IMM, 0, 0, type),
        (uapi.BPF_LD | uapi.BPF_W | uapi.BPF_ABS, 0, 0, uapi.SKF_AD_OFF + function & 0xFFFFFFFF),
    ]


def _if_found(type: int, code: "Code") -> "Code":
    """Search for an attribute; if it is there, go on with its offset in X."""
    return _find(type) + [(_JUMP_IF_EQUAL, 1 + len(code), 0, 0), _TO_INDEX] + code


def _drop_unless(number: int) -> "Code":
    return [(_JUMP_IF_EQUAL, 1, 0, number), (_RETURN, 0, 0, DROP)]


def _drop_if(number: int) -> "Code":
    return [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, DROP)]


def _word(data: bytes) -> int:
    """Up to four bytes as a load reads them, with zeros behind them."""
    return int.from_bytes(data.ljust(4, b"\0"), "big")
