# SPDX-License-Identifier: Apache-2.0
"""Run a classic socket filter as the kernel does, on a machine of either byte order.

Knows the instructions of nlraw.bpf and no others. Sources: bpf_check_classic(),
bpf_skb_get_nlattr(), bpf_skb_get_nlattr_nest() in net/core/filter.c; nla_find() in lib/nlattr.c.
"""

import struct

from nlraw import uapi

LITTLE, BIG = struct.Struct("<HBBI"), struct.Struct(">HBBI")  # sock_filter

LENGTHS = {
    uapi.BPF_LD | uapi.BPF_W | uapi.BPF_IND: 4,
    uapi.BPF_LD | uapi.BPF_H | uapi.BPF_ABS: 2,
    uapi.BPF_LD | uapi.BPF_B | uapi.BPF_IND: 1,
}
LOAD_NUMBER = uapi.BPF_LD | uapi.BPF_IMM
LOAD_INDEX = uapi.BPF_LDX | uapi.BPF_IMM
LOAD_ANCILLARY = uapi.BPF_LD | uapi.BPF_W | uapi.BPF_ABS
AND = uapi.BPF_ALU | uapi.BPF_AND
JUMP = uapi.BPF_JMP | uapi.BPF_JA
JUMP_IF_EQUAL = uapi.BPF_JMP | uapi.BPF_JEQ
RETURN = uapi.BPF_RET
TO_INDEX = uapi.BPF_MISC | uapi.BPF_TAX


def decoded(program, layout=uapi.sock_filter):
    """The instructions of a program that the kernel would accept."""
    code = list(layout.iter_unpack(program))
    assert 0 < len(code) <= uapi.BPF_MAXINSNS
    for at, (op, jt, jf, k) in enumerate(code):
        skips = {JUMP: (k,), JUMP_IF_EQUAL: (jt, jf)}.get(op, ())
        assert all(at + 1 + skip < len(code) for skip in skips), "a jump out of the program"
    assert code[-1][0] == RETURN
    return code


def run(program, message, layout=uapi.sock_filter):
    """How many bytes of a message the program keeps."""
    code = decoded(program, layout)
    order = layout.pack(1, 0, 0, 0)[0]
    attribute = struct.Struct("<HH" if order else ">HH")
    a = x = at = 0
    while True:
        op, jt, jf, k = code[at]
        at += 1
        if op == RETURN:
            return k
        if op in LENGTHS:
            start = k + (x if op & 0xE0 == uapi.BPF_IND else 0)
            end = start + LENGTHS[op]
            if end > len(message):
                return 0
            a = int.from_bytes(message[start:end], "big")
        elif op == LOAD_NUMBER:
            a = k
        elif op == LOAD_INDEX:
            x = k
        elif op == LOAD_ANCILLARY:
            nested = {0xFFFFF00C: False, 0xFFFFF010: True}[k]
            a = _search(message, a, x, attribute, nested)
        elif op == AND:
            a &= k
        elif op == TO_INDEX:
            x = a
        elif op == JUMP:
            at += k
        else:
            assert op == JUMP_IF_EQUAL, "unknown instruction %#x" % op
            at += jt if a == k else jf


def _search(message, start, type, attribute, nested):
    """The offset of the first attribute of a type; 0 if there is none."""
    end = len(message)
    if start > end - attribute.size:
        return 0
    if nested:
        length, _ = attribute.unpack_from(message, start)
        if length > end - start:
            return 0
        start, end = start + attribute.size, start + length
    while end - start >= attribute.size:
        length, found = attribute.unpack_from(message, start)
        if length < attribute.size or length > end - start:
            return 0
        if found & uapi.NLA_TYPE_MASK == type:
            return start
        start += length + 3 & ~3
    return 0
