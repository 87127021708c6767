# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of everything that reads bytes.

    python3 tests/tools/fuzz.py --seconds 600

It takes atheris, and hypothesis.

It begins with the captures, changes them guided by which code they reach, and goes on whatever it
finds. At the end it prints figures; what broke the contract is kept as a file, one for each place
in the code, and

    python3 tests/tools/fuzz.py FILE

feeds such a file once more and shows the traceback.
"""

import argparse
import hashlib
import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import traceback

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [TESTS, os.path.dirname(TESTS)]

LONGEST = 4096  # bytes of an input
SLOWEST = 10  # seconds for one input; more is an endless loop


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="how long (600)")
    parser.add_argument("--seed", type=int, default=1, help="of the chance that guides it (1)")
    parser.add_argument(
        "--work", help="where the corpus and the finds are kept (a new directory under /tmp)"
    )
    # the process that fuzzes
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", metavar="FILE", help="feed these and do nothing else")
    wanted = parser.parse_args()
    if wanted.files:
        return again(wanted.files)
    if wanted.inside:
        return fuzz(wanted)
    return supervise(wanted)


def again(files):
    from lib import junk

    broken = []
    for name in files:
        with open(name, "rb") as file:
            broken += junk.feed(file.read())
    for _, error in broken:
        traceback.print_exception(type(error), error, error.__traceback__)
    return 1 if broken else 0


# ---------------------------------------------------------------- the process that fuzzes


def fuzz(wanted):
    import atheris

    with atheris.instrument_imports(include=["nlraw"]):
        from lib import junk

    seeds, places = junk.corpus(), set()

    def change(data, longest, seed):
        chance = random.Random(seed)
        if chance.randrange(2):
            return atheris.Mutate(data, longest)
        return junk.mutate(data, chance, seeds)[:longest]

    def test(data):
        for who, error in junk.feed(data):
            place = "%s: %s" % (who, where(error))
            if place not in places:
                places.add(place)
                name = os.path.join(
                    wanted.work, "finds", hashlib.sha256(place.encode()).hexdigest()[:12]
                )
                with open(name, "wb") as file:
                    file.write(data)
                print("FIND %s %s" % (name, place), file=sys.stderr, flush=True)

    options = [
        "-max_total_time=%d" % wanted.seconds,
        "-seed=%d" % wanted.seed,
        "-max_len=%d" % LONGEST,
    ]
    options += [
        "-timeout=%d" % SLOWEST,
        "-print_final_stats=1",
        "-artifact_prefix=" + os.path.join(wanted.work, "finds", ""),
    ]
    options += [os.path.join(wanted.work, name) for name in ("corpus", "seeds")]
    atheris.Setup([sys.argv[0]] + options, test, custom_mutator=change)
    atheris.Fuzz()


def where(error):
    """The exception, and the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "%s at %s:%d" % (type(error).__name__, os.path.basename(last.filename), last.lineno)


# ---------------------------------------------------------------- the process that watches it


def supervise(wanted):
    if importlib.util.find_spec("atheris") is None:
        return "fuzz: this Python has no atheris: pip install atheris hypothesis pytest"
    from lib import junk

    wanted.work = wanted.work or tempfile.mkdtemp(prefix="nlraw-fuzz-")
    for name in ("corpus", "seeds", "finds"):
        os.makedirs(os.path.join(wanted.work, name), exist_ok=True)
    for number, data in enumerate(junk.corpus()):
        with open(os.path.join(wanted.work, "seeds", "%03d" % number), "wb") as file:
            file.write(data)
    argv = [sys.executable, os.path.abspath(__file__), "--inside", "--work", wanted.work]
    argv += ["--seconds", str(wanted.seconds), "--seed", str(wanted.seed)]
    told = []
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, universal_newlines=True, errors="replace"
    ) as child:
        for line in child.stderr:
            told.append(line)
            if line.startswith("FIND") or " pulse " in line:
                print(line.rstrip(), flush=True)
    return figures("".join(told), wanted, child.returncode)


def figures(told, wanted, status):
    def last(pattern):
        return (re.findall(pattern, told) or ["?"])[-1]

    finds = sorted(os.listdir(os.path.join(wanted.work, "finds")))
    for name, value in (
        ("seconds", wanted.seconds),
        ("executions", last(r"stat::number_of_executed_units:\s+(\d+)")),
        ("executions a second", last(r"stat::average_exec_per_sec:\s+(\d+)")),
        (
            "edges reached",
            "%s, by the seeds alone %s" % (last(r" cov: (\d+) "), last(r"INITED\s+cov: (\d+) ")),
        ),
        (
            "corpus",
            "%d seeds, %s kept"
            % (len(os.listdir(os.path.join(wanted.work, "seeds"))), last(r" corp: (\d+)/")),
        ),
        ("slowest input, seconds", last(r"stat::slowest_unit_time_sec:\s+(\d+)")),
        ("finds", len(finds)),
    ):
        print("%-24s %s" % (name, value))
    for name in finds:
        print("    python3 tests/tools/fuzz.py %s" % os.path.join(wanted.work, "finds", name))
    if status:
        print(told[-4000:], file=sys.stderr)
    return 1 if finds or status else 0


if __name__ == "__main__":
    sys.exit(main())
