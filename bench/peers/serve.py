# SPDX-License-Identifier: Apache-2.0
"""What the Python peers share: the conversation with the bench.

It imports nothing that would count as a peer's memory.
"""

import sys
import time


def serve(tasks):
    """Read "TASK ARGUMENT" from stdin a line, and answer each with the task's result as JSON.

    The argument is how often to do it, or a directory of namespaces to do it in. ``ns``, how many
    nanoseconds it took, is filled in where the task does not say.
    """
    for line in sys.stdin:
        task, argument = line.split()
        begun = time.perf_counter_ns()
        told = tasks[task](int(argument) if argument.isdecimal() else argument)
        told.setdefault("ns", time.perf_counter_ns() - begun)
        print(str(told).replace("'", '"'), flush=True)


# How many results are kept until they are counted. All of a turn would make every call take memory
# that was never used before; to count each at once would have every call find the caches of the
# processor full of something else.
KEPT = 8


def tally(count, function, links_of):
    """Call a function so many times; return the counts that every peer returns, and the time.

    ``links_of`` makes of what it returns a list of links, each as (ifindex, name). The bench knows
    what is there.
    """
    told = {"links": 0, "ifindexes": 0, "names": 0, "ns": 0}
    for done in range(0, count, KEPT):
        calls = range(min(KEPT, count - done))
        begun = time.perf_counter_ns()
        results = [function() for _ in calls]
        told["ns"] += time.perf_counter_ns() - begun
        for ifindex, name in [link for result in results for link in links_of(result)]:
            told["links"] += 1
            told["ifindexes"] += ifindex
            told["names"] += len(name)
        del results
    return told
