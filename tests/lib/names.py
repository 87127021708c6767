# SPDX-License-Identifier: Apache-2.0
"""Names of links that are no plain text, and how the kernel has them."""

# 15 bytes each: escape sequences, quotes, what is no UTF-8, what is, what is a format.
NAMES = [
    b"tap\x1b[31m\x07\x1b]0;_u",
    b"tap'\"`;|&\\#\x01~_u",
    b"tap\xff\xfe\x80\x9b\xc3\x28\x7f012_u",
    b"tap\xc3\xbc\xe2\x82\xac\xe2\x80\xae01_u",
    b"tap{0}${a}*?!_u",
]


def is_plain(text):
    return all(" " <= char <= "~" or char == "\n" for char in text)


def names(pod):
    """The names of the links as the kernel has them.

    `ip -j` makes no JSON of some, and no sense of forged answers.
    """

    def read():
        with open("/proc/thread-self/net/dev", "rb") as file:
            return {
                line.rpartition(b":")[0].lstrip(b" ") for line in file.read().split(b"\n")[2:-1]
            }

    return pod.run(read)
