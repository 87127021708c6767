# SPDX-License-Identifier: Apache-2.0
"""Build the pods of `podgen`, run nlraw on them and compare with what `podmodel` predicts.

    python3 tests/lib/podrun.py SEED                   check one seed and print everything
    python3 tests/lib/podrun.py SEED --shrink          and leave out what does not matter
    python3 tests/lib/podrun.py SEED --script          print a shell script that builds the pod
    python3 tests/lib/podrun.py --range FIRST LAST     check many; a JSON line for each failure
    ... --by-hand                                      let ip and tc do what is predicted
    ... --without wide,stacked,block,chain,spots,table,classful
                                                       pods without such parts

Needs root. Each pod is a network namespace of this process alone: unshare(2) makes it, and it ends
when the process goes to the next one. Nothing is pinned anywhere.
"""

import argparse
import ctypes
import errno
import fcntl
import io
import json
import os
import shlex
import struct
import subprocess
import sys
import time
import traceback
from collections import Counter, namedtuple

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path += [TESTS, os.path.dirname(TESTS)]  # behind an nlraw that PYTHONPATH names

import nlraw
from lib import podgen, podmodel

PRODUCT = os.path.dirname(os.path.dirname(os.path.abspath(nlraw.__file__)))
ENVIRONMENT = dict(os.environ, PYTHONPATH=PRODUCT)

CLONE_NEWNET = 0x40000000
# linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETQUEUE = 0x400454D9
TUNSETCARRIER = 0x400454E2
IFF_TAP = 0x0002
IFF_MULTI_QUEUE = 0x0100
IFF_DETACH_QUEUE = 0x0400
IFF_NO_PI = 0x1000

# One seed in so many goes through the real command line instead of `nlraw.cli.main`.
REAL_COMMAND_LINE = 16

# ---------------------------------------------------------------- building

_libc = ctypes.CDLL(None, use_errno=True)


def _unshare():
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    for name in ("all", "default"):  # so that nothing moves by itself
        path = "/proc/sys/net/ipv6/conf/%s/disable_ipv6" % name
        if os.path.exists(path):
            with open(path, "w") as file:
                file.write("1")


def _pipe(program, lines):
    """Run a program of iproute2 with command lines on its input; return (stdout, stderr)."""
    child = subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, error = child.communicate("".join(line + "\n" for line in lines).encode())
    return out.decode(), error.decode()


class Built:
    """A pod in a new namespace, which the calling process is moved to. Close it before the next."""

    def __init__(self, pod):
        self.pod = pod
        self.complaints = ""
        self._open = []
        far = "FAR"
        if any(" netns FAR" in line for line in pod.lines("ip")):
            _unshare()
            self._open.append(os.open("/proc/self/ns/net", os.O_RDONLY))
            far = "/proc/%d/fd/%d" % (os.getpid(), self._open[-1])
        _unshare()
        self.path = "/proc/%d/ns/net" % os.getpid()
        taps = pod.facts(podgen.Tap)
        self._ip([line.replace(" netns FAR", " netns " + far) for line in pod.lines("ip")])
        for tap in taps:
            if tap.state == "used":
                os.close(self._attach(tap))
        self.complaints += _pipe(["tc", "-force", "-batch", "-"], pod.lines("tc"))[1]
        self._ip(pod.lines("late"))
        for tap in taps:
            self._hold(tap)

    def _ip(self, lines):
        if lines:
            self.complaints += _pipe(["ip", "-force", "-batch", "-"], lines)[1]

    def _attach(self, tap):
        tun = os.open("/dev/net/tun", os.O_RDWR)
        flags = IFF_TAP | IFF_NO_PI | (IFF_MULTI_QUEUE if tap.multi_queue else 0)
        request = struct.pack("=16sH22x", tap.name.encode(), flags)
        for left in reversed(range(100)):
            try:
                fcntl.ioctl(tun, TUNSETIFF, request)
                return tun
            except OSError as error:
                # somebody who looks for holders has a copy of the descriptor for a moment
                if error.errno != errno.EBUSY or not left:
                    raise
                time.sleep(0.01)
        return tun

    def _hold(self, tap):
        if tap.state in ("fresh", "used"):
            return
        self._open.append(self._attach(tap))
        if tap.state == "half-detached":
            self._open.append(self._attach(tap))
        if tap.state in ("detached", "half-detached"):
            fcntl.ioctl(self._open[-1], TUNSETQUEUE, struct.pack("=16sH22x", b"", IFF_DETACH_QUEUE))
        if tap.state == "carrier-off":
            fcntl.ioctl(self._open[-1], TUNSETCARRIER, struct.pack("=i", 0))

    def close(self):
        for each in self._open:
            os.close(each)
        self._open = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


SCRIPT = """\
# Build the pod of seed %d; run as root: sh FILE, with NLRAW=checkout
if [ -z "$FAR" ]; then
    unshare -n sleep 3600 & FAR=$!; export FAR; sleep .2
    trap 'kill $FAR' EXIT; unshare -n sh "$0"; exit
fi
nlraw() { PYTHONPATH=${NLRAW:-.} python3 -m nlraw "$@"; }
tap() { # NAME FLAGS SECONDS [ioctl]: open a TAP, and hold it
    python3 -c "import fcntl,os,struct,sys,time
name, flags, more = sys.argv[1].encode(), int(sys.argv[2], 0), sys.argv[4:]
f = os.open('/dev/net/tun', 2); fcntl.ioctl(f, 0x400454ca, struct.pack('16sH22x', name, flags))
if more == ['detach']: fcntl.ioctl(f, 0x400454d9, struct.pack('16sH22x', b'', 0x400))
if more == ['carrier-off']: fcntl.ioctl(f, 0x400454e2, struct.pack('i', 0))
time.sleep(float(sys.argv[3]))" "$@"; }
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 2>/dev/null
"""


def script(pod, arguments):
    """A shell script that builds the pod and runs nlraw in it."""
    lines = [SCRIPT % pod.seed]
    lines += ["ip " + line.replace(" netns FAR", " netns $FAR") for line in pod.lines("ip")]
    taps = pod.facts(podgen.Tap)
    flags = {tap: IFF_TAP | IFF_NO_PI | tap.multi_queue * IFF_MULTI_QUEUE for tap in taps}
    lines += ["tap %s %#x 0" % (tap.name, flags[tap]) for tap in taps if tap.state == "used"]
    lines += ["tc " + line for line in pod.lines("tc")]
    lines += ["ip " + line for line in pod.lines("late")]
    for tap in taps:
        hold = "tap %s %#x 60" % (tap.name, flags[tap])
        if tap.state in ("held", "half-detached"):
            lines.append(hold + " &")
        if tap.state in ("detached", "half-detached"):
            lines.append(hold + " detach &")
        if tap.state == "carrier-off":
            lines.append(hold + " carrier-off &")
    words = " ".join(map(shlex.quote, arguments))
    lines += ["sleep 1", "NET=/proc/$$/ns/net", "nlraw cleanup -n $NET %s" % words]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- reading


def _pairs(pairs):
    """A JSON object; `tc` repeats the key "match" for each match of a u32 filter."""
    found = dict(pairs)
    if "match" in found:
        found["match"] = [value for key, value in pairs if key == "match"]
    return found


_decoder = json.JSONDecoder(object_pairs_hook=_pairs)


def _documents(text):
    """The JSON documents at the start of a text, and what follows them."""
    found, at = [], 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text) or text[at] not in "[{":
            return found, text[at:]
        document, at = _decoder.raw_decode(text, at)
        found.append(document)


def read(devices, blocks, classful=()):
    """The `State` of the current namespace, of those devices and blocks."""
    out, error = _pipe(
        ["ip", "-d", "-j", "-force", "-batch", "-"], ["address show", "route show table all"]
    )
    (links, routes), rest = _documents(out)
    assert not error and not rest, (error, rest)
    hooks = [(dev, side) for dev in devices for side in ("ingress", "egress")]
    hooks += [(number, None) for number in blocks]
    lines, meant = ["qdisc show"], [None]
    for hook in hooks:
        for what in ("filter", "chain"):
            lines.append("%s show %s" % (what, podgen.words_for(hook)))
            meant.append((hook, what))
    for dev in classful:
        hook = ((dev, "1:"), None)
        lines.append("filter show " + podgen.words_for(hook))
        meant.append((hook, "filter"))
    for dev in classful:  # classes are text; the next command marks their end
        lines += ["class show dev %s" % dev, "qdisc show dev lo"]
        meant += [(dev, "class"), (dev, "end")]
    out, error = _pipe(["tc", "-d", "-j", "-force", "-batch", "-"], lines)
    failed = {
        int(line.rpartition(":")[2]) - 1
        for line in error.splitlines()
        if line.startswith("Command failed -:")
    }
    asked = [
        what
        for number, what in enumerate(meant)
        if number not in failed and (what is None or what[1] != "class")
    ]
    listed, classes = {}, {}
    for line in out.splitlines():
        what = asked[len(listed)]
        if line.startswith("["):
            listed[what] = _decoder.decode(line)
        else:
            classes.setdefault(what[0], []).append(line)
    assert len(asked) == len(listed), (asked, out, error)
    qdiscs = {_qdisc_key(each): _less(each, *QDISC_KEY) for each in listed[None]}
    places = {}
    for hook in [each[0] for each in asked if each is not None and each[1] == "filter"]:
        place, side = hook
        if side is not None and not _has_side(qdiscs, place, side):
            continue
        found = places.setdefault(place, podmodel.Place((), (), {}))
        _add(found, side, listed[hook, "filter"], listed.get((hook, "chain"), ()))
    _own(places)
    return podmodel.State(
        {link["ifname"]: _link(link) for link in links},
        [_less(route, "flags") for route in routes],
        qdiscs,
        classes,
        places,
    )


QDISC_KEY = ("dev", "kind", "handle", "parent", "root")


def _qdisc_key(qdisc):
    parent = "root" if qdisc.get("root") else qdisc.get("parent", "")
    return qdisc["dev"], qdisc["kind"], qdisc["handle"], parent


def _less(found, *names):
    return {key: value for key, value in found.items() if key not in names}


def _link(link):
    """A link without what follows the carrier up to a second later, and without timers."""
    kept = _less(link, "operstate", "stats", "stats64")
    kept["flags"] = sorted(set(link["flags"]) - {"NO-CARRIER", "LOWER_UP", "RUNNING"})
    info = dict(link.get("linkinfo", {}))
    for part in ("info_data", "info_slave_data"):
        if part in info:
            info[part] = {
                key: value
                for key, value in info[part].items()
                if not key.endswith("_timer") and key not in ("state", "topology_change_detected")
            }
    if info:
        kept["linkinfo"] = info
    if info.get("info_kind") == "bridge":  # follow the ports
        kept = _less(kept, "tso_max_size", "tso_max_segs", "gso_max_size", "gso_max_segs")
    return kept


def _has_side(qdiscs, dev, side):
    """True if the device has filters of its own at that side."""
    for (name, kind, _, _), rest in qdiscs.items():
        if name == dev and kind in ("ingress", "clsact"):
            return side + "_block" not in rest and (kind, side) != ("ingress", "egress")
    return False


def _add(place, side, filters, chains):
    """Add to a `Place` what `tc` lists at one side of it."""
    place.chains.update((side, each["chain"]) for each in chains)
    for each in filters:
        spot, pref = (side, each["chain"]), each["pref"]
        place.priorities.add((spot, pref, each["protocol"], each["kind"]))
        options = each.get("options")
        if options:
            content = dict(options, kind=each["kind"])
            content["actions"] = [
                _less(action, "ref", "bind", "stats") for action in content.get("actions", ())
            ]
            place.items[spot, pref, options.get("fh", options.get("handle"))] = content


def _own(places):
    """Keep each u32 item where it was added.

    u32 lists what has one priority number in every chain that has this number, and on both sides
    of a clsact (tc_u_common_ptr() in net/sched/cls_u32.c). A get of the handle TC_U32_ROOT returns
    the root table of one chain's priority.
    """
    asked, lines = [], []
    for place, listed in places.items():
        u32 = [each for each in listed.priorities if each[3] == podgen.U32]
        numbers = Counter(each[1] for each in u32)
        for spot, pref, protocol, _ in u32:
            if numbers[pref] > 1:
                words = podgen.words_for((place, spot[0]))
                words += " ingress" if isinstance(place, int) else ""  # or `tc` asks for a parent
                row = (words, pref, spot[1], protocol)
                lines.append("filter get %s pref %d chain %d protocol %s handle fff: u32" % row)
                asked.append((place, pref, spot))
    if not lines:
        return
    out, error = _pipe(["tc", "-d", "-j", "-force", "-batch", "-"], lines)
    documents = _documents(out)[0]
    assert len(documents) == len(asked), (lines, out, error)
    owners = {}
    for (place, pref, spot), (found,) in zip(asked, documents):
        owners[place, pref, found["options"]["fh"]] = spot
    shared = {(place, pref) for place, pref, _ in asked}
    for place, listed in places.items():
        for key, content in list(listed.items.items()):
            spot, pref, handle = key
            if content["kind"] != podgen.U32 or (place, pref) not in shared:
                continue
            if owners[place, pref, handle.split(":")[0] + ":"] != spot:
                del listed.items[key]


class Reader:
    """Reads the state of one pod again and again."""

    def __init__(self, pod):
        words = [line.split() for line in pod.lines("tc")]
        devices, blocks, classful = [], [], []
        for each in words:
            if each[:3] != ["qdisc", "add", "dev"]:
                continue
            if each[-1] in ("ingress", "clsact"):
                devices.append(each[3])
            if "htb" in each:
                classful.append(each[3])
            blocks += [int(each[at + 1]) for at, word in enumerate(each) if word.endswith("_block")]
        self.places = (sorted(set(devices)), sorted(set(blocks)), classful)

    def __call__(self):
        return read(*self.places)


# ---------------------------------------------------------------- running nlraw

Ran = namedtuple("Ran", "exit report stderr")


def run(arguments, in_process):
    """Run a command line of nlraw; return its exit status, JSON and stderr."""
    if in_process:
        from nlraw.cli import main

        saved, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), io.StringIO(), io.StringIO()
        try:
            status = main(arguments)
            out, error = sys.stdout.getvalue(), sys.stderr.getvalue()
        finally:
            sys.stdout, sys.stderr = saved
    else:
        child = subprocess.Popen(
            [sys.executable, "-m", "nlraw"] + arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        printed = child.communicate()
        status, out, error = child.returncode, printed[0].decode(), printed[1].decode()
    try:
        report = json.loads(out)
    except ValueError:
        report = {"unreadable": out}
    return Ran(status, report, error)


# ---------------------------------------------------------------- options that nlraw has

# What design.md has and nlraw may not have yet. NLRAW_MODEL_OPTIONS overrides what the help shows.
Features = namedtuple("Features", "several_uplinks several_matches exclude keep_in_use")


ALL = Features(True, True, True, True)


def features():
    named = os.environ.get("NLRAW_MODEL_OPTIONS")
    if named is not None:
        return Features(*[name in named.replace(",", " ").split() for name in Features._fields])
    saved, sys.stdout = sys.stdout, io.StringIO()
    try:
        from nlraw.cli import main

        main(["cleanup", "--help"])
        text = sys.stdout.getvalue()
    finally:
        sys.stdout = saved
    # an option may have its explanation on several lines
    options = {}
    for line in text.splitlines():
        words = line.split()
        flags = [word for word in words[:2] if word.startswith("--")]
        name = flags[0].split("=")[0].strip(",") if flags else None
        if name is not None:
            current = options.setdefault(name, [])
        if options:
            current.append(line)
    repeated = {name for name, lines in options.items() if "repeat" in " ".join(lines)}
    return Features(
        "--uplink" in repeated,
        "--match" in repeated,
        "--exclude" in options,
        "--keep-in-use" in options,
    )


def possible(options, has):
    """The options, with those that nlraw does not have left out."""
    match, uplinks, exclude, keep_in_use = options
    if match and not has.several_matches:
        match = match[:1]
    if uplinks and not has.several_uplinks:
        uplinks = uplinks[:1]
    return podgen.Options(
        match, uplinks, exclude if has.exclude else None, keep_in_use and has.keep_in_use
    )


def arguments_of(options, keep_in_use=True):
    found = []
    for name, values in (("-m", options.match), ("-u", options.uplinks)):
        for value in values or ():
            found += [name, value]
    for value in options.exclude or ():
        found += ["--exclude", value]
    if options.keep_in_use and keep_in_use:
        found.append("--keep-in-use")
    return found


# ---------------------------------------------------------------- comparing


class Check:
    """What was found out about one pod. ``problems`` is empty if all is as predicted."""

    def __init__(self, pod, in_process=None):
        self.pod = pod
        self.problems = []
        self.open = []
        self.prediction = self.before = None
        self.ran = {}
        if in_process is None:
            in_process = pod.seed % REAL_COMMAND_LINE != 0
        self.in_process = in_process
        with Built(pod) as built:
            self.complaints = built.complaints
            self._check(built)

    def _check(self, built):
        pod, read_state = self.pod, Reader(self.pod)
        self.before = before = read_state()
        self.prediction = found = podmodel.predict(pod, before)
        netns = ["-j", "-n", built.path]
        options = arguments_of(pod.options)
        scan = self._run("scan", netns + arguments_of(pod.options, keep_in_use=False))
        dry = self._run("cleanup", ["-N"] + netns + options, "dry run")
        self._same("scan or the dry run changed the pod", before, read_state())
        done = self._run("cleanup", netns + options)
        after = read_state()
        gone = podmodel.settle(found, after)
        self.open = sorted(set(found.open.values()))
        expected = podmodel.expected_state(pod, before, found, gone)
        self._same("the pod after the cleanup", expected, after)

        lists = podmodel.removed(before, found, gone)
        outcomes = found.outcomes
        if outcomes == {"clean", "cleaned"}:  # open cases alone: by what went
            outcomes = {"cleaned"} if gone.filters or gone.qdiscs else {"clean"}
        self._report("cleanup", done, outcomes, found.exit, True, lists)
        would = {"would-clean" if each == "cleaned" else each for each in outcomes}
        self._report("dry run", dry, would, found.exit, False, lists)
        if not pod.options.keep_in_use:  # scan does not have it
            self._report("scan", scan, would, 0, False, lists)
        self._again(done, netns + options, after, read_state)

    def _run(self, command, arguments, name=None):
        ran = run([command] + arguments, self.in_process)
        self.ran[name or command] = ran
        return ran

    def _again(self, done, arguments, after, read_state):
        second = self._run("cleanup", arguments, "second run")
        self._same("the second run changed the pod", after, read_state())
        if second.exit != done.exit:
            self._wrong("second run: exit status", done.exit, second.exit)
        outcome = done.report.get("outcome")
        right = {"cleaned": ["clean"]}.get(outcome, [outcome])
        if self.pod.options.keep_in_use:
            right = ["clean", "in-use", outcome if outcome != "cleaned" else "clean"]
        if second.report.get("outcome") not in right:
            self._wrong("second run: outcome", right, second.report.get("outcome"))
        if second.report.get("tc_removed"):
            self._wrong("second run: tc_removed", [], second.report["tc_removed"])

    def _wrong(self, what, expected, real):
        self.problems.append("%s\n    expected: %s\n    real:     %s" % (what, expected, real))

    def _same(self, what, expected, real):
        differences = list(_differences(expected, real))
        if differences:
            self.problems.append(what + "".join("\n    " + line for line in differences))

    def _report(self, name, ran, outcomes, status, is_done, lists):
        found, report = self.prediction, ran.report
        if ran.exit != status:
            self._wrong("%s: exit status" % name, status, "%s %s" % (ran.exit, ran.stderr.strip()))
        if report.get("outcome") not in outcomes:
            self._wrong("%s: outcome" % name, sorted(outcomes), report.get("outcome", report))
            if "outcome" not in report:
                return
        deleted = found.orphans if is_done else set()
        expected = {
            tap: verdict + (tap in deleted,)
            for tap, verdict in found.verdicts.items()
            if tap not in found.optional_taps
        }
        real = {
            tap["ifname"]: (tap["verdict"], tap["fresh"], tap["deleted"])
            for tap in report["taps"]
            if tap["ifname"] not in found.optional_taps
        }
        if real != expected:
            self._wrong("%s: taps (verdict, fresh, deleted)" % name, expected, real)
        for tap in report["taps"]:
            link = self.before.links.get(tap["ifname"], {})
            if tap["ifindex"] != link.get("ifindex"):
                self._wrong("%s: ifindex of %s" % (name, tap["ifname"]), link, tap)
        if found.uplink is not None and report["uplink"] != found.uplink:
            self._wrong("%s: uplink" % name, found.uplink, report["uplink"])
        if (report["error"] is not None) and report["outcome"] not in ("failed", "in-use"):
            self._wrong("%s: error" % name, None, report["error"])
        nothing = status == 3 or "skipped" in outcomes or report["outcome"] == "in-use"
        self._removed(name, report, ([], []) if nothing else lists)
        self._named(name, report)

    def _removed(self, name, report, lists):
        must, may = lists
        with_priority = any("priority" in each for each in report["tc_removed"])

        def shape(entry, dev):
            priority = entry.priority if with_priority else None
            return dev, entry.object, entry.kind, priority

        real = Counter(
            (each["dev"], each["object"], each["kind"], each.get("priority"))
            for each in report["tc_removed"]
        )
        left, missing = Counter(real), []
        for entry in must:
            if entry.dev is not None:
                key = shape(entry, entry.dev)
                left[key] -= 1
                if left[key] < 0:
                    missing.append(key)
        left = +left
        # the contract does not say what "dev" is of a filter in a shared block
        for needed, entries in ((True, [e for e in must if e.dev is None]), (False, may)):
            for entry in entries:
                key = shape(entry, entry.dev)
                fits = [
                    each for each in left if key[1:] == each[1:] and entry.dev in (None, each[0])
                ]
                if fits:
                    left[fits[0]] -= 1
                    left = +left
                elif needed:
                    missing.append(key)
        if missing or left:
            text = "missing %s, too many %s" % (sorted(map(str, missing)), sorted(map(str, left)))
            self._wrong("%s: tc_removed" % name, text, sorted(map(str, real.elements())))

    def _named(self, name, report):
        """What the report names besides, where nlraw has these keys."""
        found = self.prediction
        if "ignored" in report:
            real = {each["ifname"]: each["kind"] for each in report["ignored"]}
            for link in set(found.uplinks) & set(found.ignored):
                real.setdefault(link, found.ignored[link])
            if set(real) != set(found.ignored) or any(
                kind is not None and not str(real[link]).startswith(kind)
                for link, kind in found.ignored.items()
            ):
                self._wrong("%s: ignored" % name, found.ignored, real)
        if "dead_redirects" in report:
            real = Counter(
                (each["dev"], each["kind"], each["priority"]) for each in report["dead_redirects"]
            )
            missing = set(found.dead) - set(real)  # a priority may be named once
            if missing:
                self._wrong("%s: dead_redirects" % name, found.dead, list(real.elements()))

    # ------------------------------------------------------------ for people

    def text(self):
        """What a person needs to see why, and to do it again."""
        pod, found = self.pod, self.prediction
        lines = ["seed %d: %s" % (pod.seed, "FAILED" if self.problems else "as predicted")]
        lines += ["  " + line for problem in self.problems for line in problem.splitlines()]
        if self.open:
            lines.append("  open cases: " + ", ".join(self.open))
        lines += ["", "options: " + (" ".join(arguments_of(pod.options)) or "none"), "prediction:"]
        lines.append("  outcome %s, exit %d" % (" or ".join(sorted(found.outcomes)), found.exit))
        for tap, (verdict, fresh) in sorted(found.verdicts.items()):
            goes = ", goes" if tap in found.orphans else ""
            lines.append("  %s: %s%s%s" % (tap, verdict, ", fresh" if fresh else "", goes))
        for place, key in sorted(found.filters, key=repr):
            content = self.before.places[place].items[key]
            targets = ", ".join(podmodel.redirects(content))
            place_words = podgen.words_for((place, key[0][0]))
            row = (place_words, key[0][1], key[1], key[2], content["kind"], targets)
            lines.append("  filter %s chain %s pref %s %s %s, to %s: goes" % row)
        lines += ["  qdisc %s %s: goes" % (key[1], key[0]) for key in sorted(found.qdiscs)]
        lines += ["", "reality:"]
        for name, ran in self.ran.items():
            lines.append("  %s: exit %s %s" % (name, ran.exit, json.dumps(ran.report)))
            lines += ["    " + line for line in ran.stderr.splitlines()]
        lines += ["", "what ip and tc refused while the pod was built:"]
        lines += ["  " + line for line in self.complaints.splitlines() or ["nothing"]]
        lines += ["", script(pod, arguments_of(pod.options))]
        return "\n".join(lines)


def _differences(expected, real):
    for name in podmodel.State._fields:
        one, other = getattr(expected, name), getattr(real, name)
        if name == "routes":
            one = {json.dumps(route, sort_keys=True): True for route in one}
            other = {json.dumps(route, sort_keys=True): True for route in other}
        for key in sorted(set(one) | set(other), key=repr):
            if key not in other:
                yield "%s %s: expected to stay, and is gone" % (name, key)
            elif key not in one:
                yield "%s %s: expected to go, and is there" % (name, key)
            elif one[key] != other[key]:
                yield "%s %s: %s" % (name, key, "; ".join(_parts(one[key], other[key])))


def _parts(one, other):
    if isinstance(one, podmodel.Place):
        one, other = one.fields(), other.fields()
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(set(one) | set(other), key=repr):
            if one.get(key) != other.get(key):
                for part in _parts(one.get(key), other.get(key)):
                    yield "%s: %s" % (key, part)
    elif isinstance(one, set) and isinstance(other, set):
        for each in sorted(one - other):
            yield "%s expected to stay, and is gone" % (each,)
        for each in sorted(other - one):
            yield "%s expected to go, and is there" % (each,)
    else:
        yield "expected %r, is %r" % (one, other)


class ByHand(Check):
    """A check of the model itself: `tc` and `ip` do what is predicted, instead of nlraw."""

    def _check(self, built):
        pod, read_state = self.pod, Reader(self.pod)
        self.before = before = read_state()
        self.prediction = found = podmodel.predict(pod, before)
        lines = []
        for place, key in sorted(found.filters, key=repr):
            (side, chain), pref, handle = key
            listed = before.places[place]
            words = (podgen.words_for((place, side)), pref, chain)
            words += (podmodel.protocol_of(listed, key),)
            priority = "%s pref %d chain %d protocol %s" % words
            lines.append(
                "filter del %s handle %s %s" % (priority, handle, listed.items[key]["kind"])
            )
        sure = podmodel.Gone(found.filters, set(), found.qdiscs)
        expected = podmodel.expected_state(pod, before, found, sure)
        for place, listed in before.places.items():
            if place in expected.places:
                for (side, chain), pref, protocol, _ in listed.priorities:
                    left = expected.places[place].priorities
                    if ((side, chain), pref) not in [each[:2] for each in left]:
                        words = (podgen.words_for((place, side)), pref, chain, protocol)
                        lines.append("filter del %s pref %d chain %d protocol %s" % words)
        lines += ["qdisc del dev %s ingress" % key[0] for key in found.qdiscs]
        self.by_hand = lines
        _pipe(["tc", "-force", "-batch", "-"], lines)
        built._ip(["link del " + name for name in sorted(found.orphans)])
        after = read_state()
        expected = podmodel.expected_state(pod, before, found, podmodel.settle(found, after))
        self._same("the pod after the cleanup", expected, after)
        report = {"outcome": sorted(found.outcomes)[0]}
        self.ran["cleanup"] = Ran(found.exit, report, "by hand:\n" + "\n".join(lines))


# ---------------------------------------------------------------- seeds


def prepare(seed, has, without=()):
    pod = podgen.generate(seed, lambda options: possible(options, has))
    return pod.without_tags(without)


def shrink(check, limit=60):
    """Leave out parts as long as the first problem stays of its kind; return the smallest check."""
    kind = check.problems[0].split("\n")[0]
    is_smaller, tries = True, 0
    while is_smaller and tries < limit:
        is_smaller = False
        for part in check.pod.parts:
            if part.phase == "tap" or tries == limit:
                continue
            smaller = check.pod.without(part)
            names = {tap.name for tap in smaller.facts(podgen.Tap)}
            made = {
                line.split()[2] for line in smaller.lines("ip") if line.startswith("tuntap add ")
            }
            for fact in smaller.parts:
                if fact.phase == "tap" and fact.fact.name in names - made:
                    smaller = smaller.without(fact)
            tries += 1
            tried = type(check)(smaller, check.in_process)
            if tried.problems and tried.problems[0].split("\n")[0] == kind:
                check, is_smaller = tried, True
    return check


def missing():
    """Why no pod can be built here, or None."""
    if os.geteuid() != 0:
        return "not root"
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    for program in ("ip", "tc"):
        try:
            subprocess.check_output([program, "-V"])
        except OSError:
            return "no %s of iproute2" % program
    return None


def work(first, last, step, without=(), by_hand=False):
    """Check seeds; print one JSON line for each that failed, and one with the sums."""
    kind, has = (ByHand, ALL) if by_hand else (Check, features())
    sums = Counter()
    begin = time.monotonic()
    for seed in range(first, last, step):
        sums["seeds"] += 1
        pod = prepare(seed, has, without)
        try:
            check = kind(pod)
        except (
            Exception
        ):  # a defect of the model, or of nlraw in this process: the next seed goes on
            problem = traceback.format_exc()
            text = "seed %d: %s\n%s" % (seed, problem, script(pod, arguments_of(pod.options)))
            failed = {"seed": seed, "problems": [problem], "text": text}
        else:
            sums["outcome " + str(check.ran["cleanup"].report.get("outcome"))] += 1
            sums.update("open " + name for name in check.open)
            sums["lines refused"] += check.complaints.count("Command failed")
            sums["lines"] += sum(len(pod.lines(phase)) for phase in ("ip", "tc", "late"))
            failed = {"seed": seed, "problems": check.problems, "text": check.text()}
        if failed["problems"]:
            sums["failed"] += 1
            print(json.dumps(failed))
            sys.stdout.flush()
    sums["milliseconds"] = int(1e3 * (time.monotonic() - begin))
    print(json.dumps({"sums": sums, "options": has._asdict()}))


def check_seeds(first, last, jobs=None, without=(), by_hand=False):
    """Check a range of seeds in several processes; return (failures, sums, options).

    Two thirds of a check are waiting for the kernel to delete links: four processes to a core.
    """
    jobs = jobs or 4 * (os.cpu_count() or 1)
    children = []
    for job in range(jobs):
        argv = [sys.executable, os.path.abspath(__file__), "--worker"]
        argv += [str(first + job), str(last), str(jobs)]
        argv += ["--without", ",".join(without)] if without else []
        argv += ["--by-hand"] if by_hand else []
        children.append(subprocess.Popen(argv, stdout=subprocess.PIPE, env=ENVIRONMENT))
    failures, sums, options = [], Counter(), {}
    # a worker that waits for its pipe to be read loses time and nothing else
    for child in children:
        out = child.communicate()[0].decode()
        if child.returncode != 0:
            raise RuntimeError("a worker ended with status %s" % child.returncode)
        for line in out.splitlines():
            told = json.loads(line)
            if "sums" in told:
                sums.update(told["sums"])
                options = told["options"]
            else:
                failures.append(told)
    return sorted(failures, key=lambda each: each["seed"]), sums, options


def explain(failures, sums, options, count=3):
    """A text on some seeds that failed; the smallest pods that still fail in the same way."""
    lines = [
        "%d of %d seeds failed: %s"
        % (len(failures), sums["seeds"], ", ".join(str(each["seed"]) for each in failures[:40]))
    ]
    lines.append("options that nlraw has: " + ", ".join(k for k, has in options.items() if has))
    for failure in failures[:count]:
        argv = [sys.executable, os.path.abspath(__file__), str(failure["seed"]), "--shrink"]
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, env=ENVIRONMENT)
        small = child.communicate()[0].decode()
        lines.append(small if child.returncode == 1 else failure["text"])
    lines.append("Replay with: python3 tests/lib/podrun.py SEED [--shrink]")
    return "\n\n".join(lines)


def summary(sums):
    return "\n".join("    %-24s %8d" % (name, sums[name]) for name in sorted(sums))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("seed", type=int, nargs="?")
    parser.add_argument("--range", type=int, nargs=2, metavar=("FIRST", "LAST"))
    parser.add_argument("--jobs", type=int, help="default: four for each core")
    parser.add_argument("--worker", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--script", action="store_true", help="print the script, run nothing")
    parser.add_argument("--shrink", action="store_true", help="leave out parts that do not matter")
    parser.add_argument("--without", default="", help="tags of parts to leave out")
    parser.add_argument("--by-hand", action="store_true", help="check the model with ip and tc")
    chosen = parser.parse_args()
    without = tuple(tag for tag in chosen.without.split(",") if tag)
    if chosen.worker:
        work(*chosen.worker, without=without, by_hand=chosen.by_hand)
    elif chosen.range:
        failures, sums, options = check_seeds(
            *chosen.range, jobs=chosen.jobs, without=without, by_hand=chosen.by_hand
        )
        for failure in failures:
            print(json.dumps(failure))
        print(json.dumps({"sums": sums, "options": options}))
    else:
        kind, has = (ByHand, ALL) if chosen.by_hand else (Check, features())
        pod = prepare(chosen.seed, has, without)
        if chosen.script:
            print(script(pod, arguments_of(pod.options)))
            return
        check = kind(pod)
        if check.problems and chosen.shrink:
            check = shrink(check)
        print(check.text())
        sys.exit(bool(check.problems))


if __name__ == "__main__":
    main()
