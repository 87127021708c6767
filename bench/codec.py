# SPDX-License-Identifier: Apache-2.0
"""What does it cost to build a message and to parse one, without a kernel?

Built is the request for a pair of veth, in which attributes are nested three deep; parsed is what
the kernel reports of a TAP, about 1,100 bytes, and nine of its values are read. pyperf does the
timing, in processes that take turns.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

from nlraw import link, uapi

from . import lab
from .pods import NotDone
from .timing import Row, in_turn

PEER = os.path.join(lab.PEERS, "codec_peer.py")


def message(laboratory):
    """The path of a file with one message of the kernel's about a TAP."""
    path = os.path.join(laboratory.directory, "message")
    with laboratory.pod() as pod:
        pod.taps(1)
        ((_, _, _, _, data, start, end),) = pod.query(link.dump("tun"))[0]
    with open(path, "wb") as file:
        file.write(data[start - uapi.nlmsghdr.size : end])
    return path


def measure(laboratory):
    if find_spec("pyperf") is None:
        laboratory.skipped["pyperf"] = "not installed; see bench/requirements.txt"
        return []
    codecs = [lab.NLRAW, lab.PYROUTE2] if lab.PYROUTE2 in laboratory.peers else [lab.NLRAW]
    path = message(laboratory)
    check(laboratory, path, codecs)
    contenders = {
        (task, codec): _turn(laboratory, path, codec, task)
        for task in ("build", "parse")
        for codec in codecs
    }
    samples = in_turn(contenders, *((3, 1) if laboratory.quick else (9, 45)))
    rows = [Row("codec", task, 1, codec, taken) for (task, codec), taken in samples.items()]
    for codec in codecs:
        both = [sum(pair) for pair in zip(samples["build", codec], samples["parse", codec])]
        rows.append(Row("codec", "build and parse", 1, codec, both))
    return rows


def check(laboratory, path, codecs):
    """Refuse to compare codecs that read different things."""
    told = {codec: _run(laboratory, path, codec, "show").split(None, 1)[1] for codec in codecs}
    if len(set(told.values())) != 1:
        raise NotDone("the codecs disagree: %s" % told)


def _turn(laboratory, path, codec, task):
    result = os.path.join(laboratory.directory, "pyperf.json")

    def turn():
        options = [
            "--processes=1",
            "--warmups=1",
            "--values=3",
            "--loops=500",
            "--quiet",
            "-o",
            result,
        ]
        _run(laboratory, path, codec, task, *options)
        with open(result) as file:
            (run,) = json.load(file)["benchmarks"][0]["runs"]
        os.unlink(result)
        return sorted(run["values"])[1]

    return turn


def _run(laboratory, path, codec, task, *options):
    argv = [sys.executable, PEER, laboratory.copy, path, codec, task] + list(options)
    done = subprocess.run(
        argv, env=lab.ENVIRONMENT, stdout=subprocess.PIPE, universal_newlines=True, check=True
    )
    return done.stdout
