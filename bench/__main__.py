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

# Where a full run leaves all rows; not part of the repository.
RAW = os.path.join(lab.HERE, "raw")


def main():
    options = parse()
    described = machine.describe()
    laboratory = lab.Lab(options.quick)
    try:
        measured = run(laboratory, options.only or BENCHES)
        if options.check:
            # what other work on the machine did to a bench once, it hardly does twice
            measured.update(run(laboratory, benches_with_losses(measured)))
        judged = budgets.judged(all_rows(measured))
        found = report.document(
            described, options.quick, laboratory.skipped, all_rows(measured), judged
        )
    finally:
        laboratory.close()
    print(report.in_markdown(found))
    for text in budgets.unmeasured(all_rows(measured)) if not options.only else ():
        print("bench: not measured: %s" % text, file=sys.stderr)
    if options.output:
        keep(found, options.output, options.output, "")
    elif not (options.quick or options.only):
        keep(found, lab.HERE, RAW, os.path.join(lab.HERE, "README.md"))
    return verdict(judged) if options.check else 0


def keep(found, directory, raw, readme):
    report.write(found, directory, raw, readme)
    print("bench: all rows are in %s" % os.path.abspath(raw), file=sys.stderr)


def parse():
    parser = argparse.ArgumentParser(prog="python3 -m bench", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer sizes and turns: four minutes instead of twenty",
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
        help="where to write all results; without it a full run writes its summary, the charts "
        "and the table of bench/README.md into bench/, and all rows into bench/raw/",
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
