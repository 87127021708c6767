# SPDX-License-Identifier: Apache-2.0
"""The tests, tested: break nlraw in one place at a time, and see whether a test fails.

    pip install mutmut pytest hypothesis
    python tests/tools/mutants.py wire exchange plan    # as root: some tests make namespaces
    python tests/tools/mutants.py plan --live tests/live/kernel/test_foreign.py

The changes are mutmut's, made to a copy of the tree. Its own runner cannot be used: it takes no
methods with decorators, nothing outside of functions, and starts over with all tests. Here the
tests are collected once; for each mutant the process is forked, the changed functions get their new
code, and those tests of tests/unit run that come through the changed line, the quickest first. What
nothing of that notices is tried again in a process that has imported nothing yet, and then, unless
the file is one of those that touch no system, by tests/live, or by what --live names of it.

A mutant that survives is listed, unless tests/tools/survivors.txt says why it may. The exit status
is 1 if any is listed.
"""

import argparse
import gc
import glob
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time

import hypothesis
import libcst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))
sys.path.insert(0, os.path.join(TREE, "tests"))

from lib.house import PURE

UNIT, LIVE = "tests/unit", "tests/live"

MEMORY = 2 << 30  # some mutants allocate without end
UNPATCHED = 77  # an exit status
FUNCTION = 1  # CO_OPTIMIZED: the code of a function, not of a module or class

# ---------------------------------------------------------------- the mutants


class Mutant:
    def __init__(self, module, place, line, source, words):
        self.module = module
        self.place = place  # the function
        self.line = line
        self.source = source
        # the lines as they are now, and which of several alike in the function it is
        self.words = words

    def __str__(self):
        return "%s: %s" % (".".join([self.module] + self.place), self.words)


class Finder(libcst.CSTVisitor):
    """Collect what mutmut's operators make of each node that is run."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, statements):
        super().__init__()
        self.numbers = {id(statement): number for number, statement in enumerate(statements)}
        self.number = None  # of the module's statement that is being visited
        self.found = []
        self.place = []

    def on_visit(self, node):
        self.number = self.numbers.get(id(node), self.number)
        if isinstance(node, (libcst.Annotation, libcst.Decorator)):
            return False
        if isinstance(node, libcst.If) and getattr(node.test, "value", None) == "TYPE_CHECKING":
            return False
        if (
            isinstance(node, libcst.Assign)
            and getattr(node.targets[0].target, "value", None) == "TYPE_CHECKING"
        ):
            return False
        if isinstance(node, (libcst.FunctionDef, libcst.ClassDef)):
            self.place.append(node.name.value)
        position = self.get_metadata(PositionProvider, node, None)
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and position is not None:
                told = (self.number, position.start.line, list(self.place), node)
                self.found += [told + (changed,) for changed in operator(node)]
        return True

    def on_leave(self, node):
        if isinstance(node, (libcst.FunctionDef, libcst.ClassDef)):
            self.place.pop()


class Replace(libcst.CSTTransformer):
    def __init__(self, old, new):
        super().__init__()
        self.old, self.new = old, new

    def on_leave(self, original, updated):
        return self.new if original is self.old else updated


def mutants(name, source):
    wrapper = MetadataWrapper(libcst.parse_module(source))
    module = wrapper.module
    finder = Finder(module.body)
    wrapper.visit(finder)
    parts = [module.code_for_node(statement) for statement in module.body]
    ahead = source[: len(source) - len("".join(parts))]
    assert source == ahead + "".join(parts)
    seen, met = {source}, []
    for number, line, place, old, new in finder.found:
        part = module.code_for_node(module.body[number].visit(Replace(old, new)))
        changed = ahead + "".join(parts[:number]) + part + "".join(parts[number + 1 :])
        if changed in seen:
            continue
        seen.add(changed)
        try:
            compile(changed, name, "exec")
        except SyntaxError:
            continue
        before, after = source.splitlines(), changed.splitlines()
        while before and after and before[0] == after[0]:
            del before[0], after[0]
        while before and after and before[-1] == after[-1]:
            del before[-1], after[-1]
        words = " ".join(text.strip() for text in after)
        met.append((place, words))
        if met.count(met[-1]) > 1:
            words += " [%d]" % met.count(met[-1])
        yield Mutant(name, place, line, changed, words)


def explained():
    """The mutants that may survive, with the reason."""
    with open(os.path.join(TREE, "tests", "tools", "survivors.txt")) as lines:
        pairs = [
            line.rstrip("\n").rsplit("  # ", 1)
            for line in lines
            if line.strip() and not line.startswith("#")
        ]
    return dict(pairs)


# ---------------------------------------------------------------- functions, changed in place


def pairs(old, new):
    """The code objects in two of the same shape; None if more than functions' insides differ."""
    inner_old, inner_new = (
        [each for each in code.co_consts if hasattr(each, "co_code")] for code in (old, new)
    )
    if [each.co_name for each in inner_old] != [each.co_name for each in inner_new]:
        # what is made inside is made anew with each call
        return [(old, new)] if old.co_flags & FUNCTION else None
    if not old.co_flags & FUNCTION:
        told = [
            [code.co_code, code.co_names]
            + [each for each in code.co_consts if not hasattr(each, "co_code")]
            for code in (old, new)
        ]
        if repr(told[0]) != repr(told[1]):
            return None
    found = [(old, new)]
    for one, other in zip(inner_old, inner_new):
        below = pairs(one, other)
        if below is None:
            return None
        found += below
    return found


def patch(path, source, changed):
    """Give all functions of a file their changed code.

    Tell whether that was all there is to change.
    """
    found = pairs(compile(source, path, "exec"), compile(changed, path, "exec"))
    if found is None:
        return False
    codes = {(old.co_qualname, old.co_firstlineno): new for old, new in found}
    for each in gc.get_objects():
        if type(each) is type(patch) and each.__code__.co_filename == path:
            each.__code__ = codes.get(
                (each.__code__.co_qualname, each.__code__.co_firstlineno), each.__code__
            )
    return True


# ---------------------------------------------------------------- one try


def in_child(work, patience):
    """Run in a forked process: its exit status, or None where it had to be ended."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.alarm(patience)
        status = UNPATCHED  # where anything but a test raises
        try:
            status = work()
        finally:
            os._exit(status)
    status = os.waitpid(pid, 0)[1]
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


class Forking:
    """A plugin that tries the mutants instead of running the tests."""

    def __init__(self, path, source, untried, more, patience, log):
        self.path, self.source, self.untried, self.log = path, source, untried, log
        self.more, self.patience = more, patience
        self.survivors = []
        self.unpatched = []

    def pytest_runtestloop(self, session):
        told = tempfile.NamedTemporaryFile("w+")
        if in_child(lambda: self.measure(session, told), 1800) != 0:
            raise SystemExit("the tests fail without any change")
        with open(told.name) as lines:
            self.cost = [json.loads(line) for line in lines]
        for number, mutant in enumerate(self.untried):
            status = self.attempt(session, mutant)
            if status == UNPATCHED:
                self.unpatched.append(number)
            elif status == 0:
                self.survivors.append(number)
                print(
                    "    survived so far, %d: %s" % (mutant.line, mutant), file=self.log, flush=True
                )
        return True

    def run(self, session, numbers):
        for at, number in enumerate(numbers):
            item = session.items[number]
            after = session.items[numbers[at + 1]] if at + 1 < len(numbers) else None
            signal.alarm(5 + 10 * int(self.cost[number][0] + 1) if hasattr(self, "cost") else 0)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.testsfailed:
                return 1
        return 0

    def measure(self, session, told):
        """What each test costs, and the lines that it comes through."""
        lines = set()

        def trace(frame, event, _):
            if frame.f_code.co_filename != self.path:
                return None
            lines.add(frame.f_lineno)
            return trace

        threading.settrace(trace)
        for number in range(len(session.items)):
            lines.clear()
            start = time.monotonic()
            sys.settrace(trace)
            status = self.run(session, [number])
            sys.settrace(None)
            told.write(json.dumps([time.monotonic() - start, sorted(lines)]) + "\n")
            told.flush()
            if status:
                print(session.items[number].nodeid, file=self.log, flush=True)
                return status
        return 0

    def attempt(self, session, mutant):
        write(self.path, mutant.source)  # for the processes that a test starts
        through = [number for number, (_, lines) in enumerate(self.cost) if mutant.line in lines]
        numbers = sorted(through, key=lambda number: self.cost[number][0])

        def work():
            if not patch(self.path, self.source, mutant.source):
                return UNPATCHED
            if not through:  # run at import, or by other tests alone
                return 0 if self.more else UNPATCHED
            return self.run(session, numbers)

        try:
            return in_child(work, self.patience)
        finally:
            write(self.path, self.source)


def write(path, source):
    with open(path, "w") as file:
        file.write(source)


def tests_of(module, live):
    """The paths of the tests that need no kernel, and of the live ones."""
    own = "%s/test_%s.py" % (UNIT, module)
    return [own] * os.path.exists(own) + [UNIT], [] if module in PURE else live


def options(paths):
    # what is in a folder `once` takes too long
    return ["-q", "-x", "-p", "no:cacheprovider", "--ignore-glob=*/once"] + paths


def patience(paths):
    """Seconds for all the tests at these paths."""
    return 600 if paths[-1] == UNIT else 3600


def fork_stage(path, source, untried, names, more, log):
    """Try mutants in processes that have collected these tests already.

    Return the mutants that survive, and those that cannot be tried so.
    """
    told = tempfile.NamedTemporaryFile("w+")

    def work():
        plugin = Forking(path, source, untried, more, patience(names), log)
        status = pytest.main(options(names), plugins=[plugin])
        told.write(json.dumps([plugin.survivors, plugin.unpatched]))
        told.flush()
        return int(status)

    if in_child(work, 0) != 0:
        raise SystemExit("no test was run")
    with open(told.name) as text:
        return [[untried[number] for number in numbers] for numbers in json.load(text)]


def fresh_stage(path, source, untried, names, log):
    """The same, in processes that have imported nothing of nlraw."""
    left = []
    for mutant in untried:
        write(path, mutant.source)
        if in_child(lambda: int(pytest.main(options(names))), patience(names)) == 0:
            left.append(mutant)
            print("    survived afresh, %d: %s" % (mutant.line, mutant), file=log, flush=True)
        write(path, source)
    return left


# ---------------------------------------------------------------- all of them


def score(module, live, reasons, log):
    start = time.monotonic()
    path = os.path.join(os.getcwd(), "nlraw", module + ".py")
    with open(path) as file:
        source = file.read()
    every = list(mutants(module, source))
    excused = [each for each in every if str(each) in reasons]
    left = [each for each in every if str(each) not in reasons]
    pure, live = tests_of(module, live)
    for compiled in glob.glob("nlraw/__pycache__/%s.*" % module):
        os.unlink(compiled)
    print("%s: %d mutants" % (module, len(every)), file=log, flush=True)
    for names in (pure, live):
        if names and left:
            survivors, unpatched = fork_stage(
                path, source, left, names, names is pure and live, log
            )
            if not live:  # what the tests made when they were imported may have hidden the change
                survivors, unpatched = [], survivors + unpatched
            left = survivors + fresh_stage(path, source, unpatched, names, log)
    for mutant in left:
        print("SURVIVED nlraw/%s.py:%d  %s" % (module, mutant.line, mutant), file=log)
    row = (
        module,
        len(every),
        len(every) - len(excused) - len(left),
        len(excused),
        len(left),
        time.monotonic() - start,
    )
    print(
        "%s: %d mutants, %d killed, %d explained, %d survived; %.0f s" % row, file=log, flush=True
    )
    unmet = {reason for reason in reasons if reason.split(":")[0].split(".")[0] == module} - {
        str(each) for each in every
    }
    for each in sorted(unmet):
        print("survivors.txt explains what is no mutant: %s" % each, file=log, flush=True)
    return bool(left or unmet)


def main(modules, live):
    log = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_RDWR)
    reasons = explained()
    hypothesis.settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("mutants")
    with tempfile.TemporaryDirectory() as copy:
        copy = os.path.join(copy, "tree")
        shutil.copytree(
            TREE,
            copy,
            ignore=shutil.ignore_patterns(
                ".git", "__pycache__", ".*_cache", ".hypothesis", ".venv*"
            ),
        )
        os.chdir(copy)
        sys.path.insert(0, copy)
        os.environ["PYTHONPATH"] = copy
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        # leaves what is compiled behind
        in_child(lambda: int(pytest.main(["--collect-only", "-q"])), 120)
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        # any() would stop at the first
        return min(1, sum(score(module, live, reasons, log) for module in modules))


# A mutant may take the current network namespace for the one that was named: let it be an empty
# one. And it may leave namespaces of a test behind: named where nobody else sees them, they end
# with the last process.
APART = [
    "unshare",
    "--net",
    "--mount",
    "sh",
    "-c",
    'mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec "$@"',
    "sh",
]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="files of nlraw to break")
    parser.add_argument("--live", nargs="+", metavar="PATH", default=[LIVE], help="live tests")
    wanted = parser.parse_args()
    if not set(wanted.modules) <= set(PURE) and "NLRAW_APART" not in os.environ:
        os.environ["NLRAW_APART"] = "1"
        os.execvp("unshare", APART + [sys.executable] + sys.argv)
    sys.exit(main(wanted.modules, wanted.live))
