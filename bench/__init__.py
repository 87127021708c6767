# SPDX-License-Identifier: Apache-2.0
"""How fast nlraw is, beside its peers on the same machine in the same minute.

`python3 -m bench`, as root; `--quick` for a look. What it needs is in requirements.txt.

    __main__   runs the benches and writes results.json, results.md and the charts
    lab        an installed nlraw, the peers, and processes to run either in
    pods       throwaway network namespaces
    agents     processes that remove what dead VMMs leave
    machine    what the figures were measured on
    timing     contenders in turn; medians, spread, ratios
    budgets    the ratios that nlraw promises, in one table
    codec, dump, cleanup, orphans, namespaces, watch, coldstart, memory, counts
               one question each
    report     tables and results.json
    charts     the charts
    pictures   terminal pictures for the README, by themselves: `python3 -m bench.pictures`
    peers/     the same work done with other libraries
"""
