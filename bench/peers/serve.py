# SPDX-License-Identifier: Apache-2.0
"""What the Python peers share: the conversation with the bench. It imports nothing that would count as a peer's memory."""

import sys
import time


def serve(tasks):
    """Read "TASK ARGUMENT" from stdin a line, and answer each with what the task returns: numbers by name, as JSON.

    The argument is how often to do it, or a directory of namespaces to do it in. ``ns``, how many nanoseconds it took, is
    filled in where the task does not say.
    """
    for line in sys.stdin:
        task, argument = line.split()
        begun = time.perf_counter_ns()
        told = tasks[task](int(argument) if argument.isdecimal() else argument)
        told.setdefault("ns", time.perf_counter_ns() - begun)
        print(str(told).replace("'", '"'), flush=True)


def timed(count, function):
    """Call a function so many times; return what each call returned, and the nanoseconds of all."""
    begun = time.perf_counter_ns()
    results = [function() for _ in range(count)]
    return results, time.perf_counter_ns() - begun


def tally(lists, ns):
    """What every peer tells of the lists of links that it read, each link as (ifindex, name): the bench knows what is there."""
    links = [link for found in lists for link in found]
    return {
        "links": len(links),
        "ifindexes": sum(ifindex for ifindex, _ in links),
        "names": sum(len(name) for _, name in links),
        "ns": ns,
    }
