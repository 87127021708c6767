# SPDX-License-Identifier: Apache-2.0
"""`python3 -m bench`: run the benches, print what they measured, and keep what a full run did."""

import argparse
import importlib
import os
import sys
import time

from . import budgets, lab, machine, report

BENCHES = (
    "codec",
    "dump",
    "cleanup",
    "setup",
    "orphans",
    "namespaces",
    "watch",
    "coldstart",
    "memory",
    "counts",
)


def main():
    options = parse()
    laboratory = lab.Lab(options.quick)
    try:
        measured = run(laboratory, options.only or BENCHES)
        if options.check:
            # what other work on the machine did to a bench once, it hardly does twice
            measured.update(run(laboratory, benches_with_losses(measured)))
        judged = budgets.judged(all_rows(measured))
        found = report.document(
            machine.describe(), options.quick, laboratory.skipped, all_rows(measured), judged
        )
    finally:
        laboratory.close()
    print(report.in_markdown(found))
    full = not (options.quick or options.only)
    if full or options.output:
        readme = os.path.join(lab.HERE, "README.md") if full and not options.output else ""
        report.write(found, options.output or lab.HERE, readme)
    return verdict(judged) if options.check else 0


def parse():
    parser = argparse.ArgumentParser(prog="python3 -m bench", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer sizes and turns: three minutes instead of half an hour",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="fail if a budget is lost, with room for noise, twice in a row",
    )
    names = "one of %s; may be repeated" % ", ".join(BENCHES)
    parser.add_argument("--only", action="append", choices=BENCHES, metavar="NAME", help=names)
    parser.add_argument(
        "--output",
        metavar="DIRECTORY",
        help="where to write the results; a full run's go to bench/",
    )
    return parser.parse_args()


def run(laboratory, benches):
    """The rows that these benches measure, by the name of the bench."""
    measured = {}
    for name in benches:
        begun = time.monotonic()
        measured[name] = importlib.import_module("." + name, __package__).measure(laboratory)
        print("%s: %.0f s" % (name, time.monotonic() - begun), file=sys.stderr)
    return measured


def all_rows(measured):
    return [row for rows in measured.values() for row in rows]


def lost(judged):
    return [one["what"] for one in judged if not one["kept with room"]]


def benches_with_losses(measured):
    keys = budgets.keys_of(lost(budgets.judged(all_rows(measured))))
    return [name for name, rows in measured.items() if keys & {row.key for row in rows}]


def verdict(judged):
    """The exit status, and on stderr what was lost."""
    for what in lost(judged):
        print("bench: lost: %s" % what, file=sys.stderr)
    return 1 if lost(judged) else 0


if __name__ == "__main__":
    sys.exit(main())
