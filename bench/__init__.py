# SPDX-License-Identifier: Apache-2.0
"""How fast nlraw is, beside its peers on the same machine in the same minute.

`python3 -m bench`, as root; `--quick` for a look. What it needs is in requirements.txt.

    __main__   runs the benches; writes the charts, results.md and, into raw/, all rows
    lab        an installed nlraw, the peers, and processes to run either in
    pods       throwaway network namespaces
    agents     processes that remove what dead VMMs leave
    machine    what the figures were measured on
    timing     contenders in turn; medians, spread, ratios
    budgets    the ratios that nlraw promises, in one table
    codec, dump, cleanup, setup, orphans, namespaces, watch, coldstart, memory, counts
               one question each
    report     tables, results.md and results.json
    summary    the rows that results.md has, nlraw and its peers side by side
    charts     the charts
    pictures   terminal pictures for the README, by themselves: `python3 -m bench.pictures`
    peers/     the same work done with other libraries
"""
