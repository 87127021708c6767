# SPDX-License-Identifier: Apache-2.0
"""What does it cost to list the links, or to find the TAPs among them, as the links grow?

    taps         the TAPs into objects, found by the kernel where the peer can ask for that
    scan         socket opened, TAPs found and judged, socket closed
    all          every link into an object
    all, read    the same, and six values of each link read: nlraw parses when it is asked
    ..., floor   the kernel's answers to the same requests received and counted, nothing else: in C;
                 and the same system calls
                 made by Python, which looks at nothing but whether that was the end
    taps, flat   with all checks, in one function and no layers
    ..., unchecked  the same results by the shortest Python that makes them of this kernel's
                 answers: no check, no error, no
                 other layout

iproute2's figures are those of whole processes.
"""

import json
import shutil

from . import lab
from .pods import NotDone
from .timing import Row, in_turn, repeats

TAPS = 3
SIZES = (10, 100, 1004, 5000)
QUICK_SIZES = (10, 1004)

# Who can do what, and the name of the task.
TASKS = {
    "taps, floor": {lab.FLOOR: "taps", lab.PYTHON_FLOOR: "taps-floor"},
    "taps, flat": {lab.PYTHON_FLOOR: "taps-flat"},
    "taps, unchecked": {lab.PYTHON_FLOOR: "taps-unchecked"},
    "taps": {lab.NLRAW: "taps", lab.MNL: "taps", lab.GO: "taps", lab.PYROUTE2: "taps"},
    "scan, floor": {lab.FLOOR: "scan", lab.PYTHON_FLOOR: "scan-floor"},
    "scan, unchecked": {lab.PYTHON_FLOOR: "scan-unchecked"},
    "scan": {lab.NLRAW: "scan", lab.MNL: "scan", lab.GO: "scan", lab.PYROUTE2: "scan"},
    "scan of another namespace": {lab.NLRAW: "scan-other"},
    "all, floor": {lab.FLOOR: "dump"},
    "all": {lab.NLRAW: "dump", lab.GO: "dump", lab.MNL: "dump", lab.PYROUTE2: "dump"},
    "all, read": {lab.NLRAW: "read"},
}
COMMANDS = {"all": ["ip", "-j", "link"], "taps": ["ip", "-j", "link", "show", "type", "tun"]}


def measure(laboratory):
    rows = []
    for size in QUICK_SIZES if laboratory.quick else SIZES:
        with laboratory.pod() as pod:
            pod.uplink()
            pod.held_taps(TAPS)
            pod.fill(size)
            rows += _in_pod(laboratory, pod, size)
    return rows


def _in_pod(laboratory, pod, size):
    everything, taps = pod.expected(), pod.expected("tun")
    workers, contenders = {}, {}
    try:
        for what, tasks in TASKS.items():
            for who, task in tasks.items():
                if who not in laboratory.peers:
                    continue
                if who not in workers:
                    workers[who] = laboratory.worker(who, pod)
                expected = everything if what.startswith("all") else taps
                contenders[what, who] = _turn(workers[who], task, expected)
        if shutil.which("ip"):
            for what, command in COMMANDS.items():
                links = (everything if what == "all" else taps)["links"]
                contenders[what, lab.IPROUTE2] = _process(
                    pod, [shutil.which(command[0])] + command[1:], links
                )
        samples = in_turn(contenders, *((21, 15) if laboratory.quick else (31, 20)), least=1)
    finally:
        for worker in workers.values():
            worker.close()
    return [Row("dump", what, size, who, taken) for (what, who), taken in samples.items()]


def _turn(worker, task, expected):
    """A function that does the task for one turn, checks it, and returns the seconds of one."""

    def once():
        return worker.do(task, 1, **expected)["seconds"]

    once()
    count = repeats(once())
    summed = {name: value * count for name, value in expected.items()}

    def turn():
        once()  # warms the caches
        return worker.do(task, count, **summed)["seconds"] / count

    return turn


def _process(pod, argv, links):
    """The same of a process that lists so many links in JSON."""
    output = pod.path + ".json"

    def turn():
        seconds = lab.spawn_well(argv, pod, output)
        with open(output) as file:
            # iproute2 lists what it leaves out as {}
            listed = sum("ifindex" in found for found in json.load(file))
        if listed != links:
            raise NotDone("%s listed %d links and not %d" % (" ".join(argv), listed, links))
        return seconds

    return turn
