# SPDX-License-Identifier: Apache-2.0
"""The test suite on other kernels, byte orders and Pythons, and one table of how it went.

    python3 tests/tools/matrix.py [ROW...]      # as root, on a Debian; --list names the rows

A row is a Debian root, unpacked into the work directory and not installed, with a Python and
iproute2 in it. Some rows boot another kernel with that root as its initramfs, under QEMU's TCG,
which needs no /dev/kvm. The others run in the root on this machine's kernel, in mount, PID and
network namespaces of their own, which end with them. Either way this file is run again inside, with
--inside: it runs pytest there and tells what it sees, a line a test, so that a row that hangs still
says in which test, and what went before it counts.

What is downloaded is kept in the work directory, and used again if that is given by --work; so is
what each file of tests came to when it was last run, for --table. Nothing is written to the tree:
the rows work on a copy. One row runs at a time.
"""

import argparse
import collections
import contextlib
import json
import lzma
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # not to the tree
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TREE = os.path.dirname(TESTS)
sys.path[:0] = [TESTS, TREE]

from lib import command, guest

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# The oldest Python among the rows decides which versions of the tests' own needs are taken; they
# are pure Python.
OLDEST = "3.9"
WHEELS = [
    "pytest<9",
    "hypothesis<6.142",
    "iniconfig<2.2",
    "packaging<26",
    "exceptiongroup",
    "tomli",
    "typing_extensions",
]

# What runs on this machine's kernel as it is.
NATIVE = ("amd64", "i386")

# What a root has beside its Python.
TOOLS = ["libc-bin", "coreutils", "dash", "util-linux", "mount", "kmod", "iproute2", "strace"]
TOOLS += ["bash", "sed", "mawk"]
COMPILER = ["gcc", "libc6-dev", "linux-libc-dev"]

# What the scripts of packages would have written in /etc.
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n",
    "group": "root:x:0:\ndaemon:x:1:\n",
    "hostname": "nlraw\n",
}

# The parts of the suite: the folders of tests/ that are played, those that are quick first. What is
# in a folder `once` is left out: it depends on neither kernel nor interpreter.
PARTS = ("unit", "repo", "live", "live/kernel")

Row = collections.namedtuple("Row", "name about architecture suite python packages kernel without")
Kernel = collections.namedtuple("Kernel", "suites flavour program package machine console")

# Without cx16: QEMU 7.2 was seen to return from cmpxchg16b with flags of nonsense, of which 6.12's
# allocator double faults.
PC = (
    "qemu-system-x86_64",
    "qemu-system-x86",
    ("-M", "pc", "-cpu", "qemu64,+rdrand,-cx16", "-smp", "1"),
    "ttyS0",
)
# Without vx: with QEMU 7.2's no ping is answered, as the kernel's checksums, which are made with
# vector registers, are others.
MAINFRAME_CPU = "qemu,vx=off,vxeh=off"
MAINFRAME = (
    "qemu-system-s390x",
    "qemu-system-misc",
    ("-M", "s390-ccw-virtio", "-cpu", MAINFRAME_CPU, "-smp", "1"),
    "ttysclp0",
)

# What a row leaves out, by how the paths of the files begin, and why.
PURE = tuple((part + "/", "no kernel in it") for part in ("unit", "repo"))

USUAL = ("amd64", "trixie", "python3", ["python3"])
NEW = ["python3.14", "python3.15"]
ROWS = (
    Row(
        "linux-5.10",
        "Linux 5.10 of Debian 11",
        *USUAL,
        Kernel(("bullseye",), "cloud-amd64", *PC),
        PURE,
    ),
    Row(
        "linux-6.1",
        "Linux 6.1 of Debian 12",
        *USUAL,
        Kernel(("bookworm",), "cloud-amd64", *PC),
        PURE,
    ),
    Row(
        "linux-6.12",
        "Linux 6.12 of Debian 13",
        *USUAL,
        Kernel(("trixie",), "cloud-amd64", *PC),
        PURE,
    ),
    Row(
        "linux-newest",
        "the newest Linux that Debian has",
        *USUAL,
        Kernel(("trixie-backports", "forky"), "cloud-amd64", *PC),
        PURE,
    ),
    Row(
        "s390x",
        "big endian: Linux 6.12 for s390x",
        *("s390x", "bookworm", "python3", ["python3"]),
        Kernel(("trixie",), "s390x", *MAINFRAME),
        (),
    ),
    Row(
        "i386",
        "32 bit, on this kernel",
        "i386",
        "bookworm",
        "python3",
        ["python3"] + COMPILER,
        None,
        (),
    ),
    Row(
        "python3.14", "CPython 3.14, on this kernel", "amd64", "forky", "python3.14", NEW, None, ()
    ),
    Row(
        "python3.15", "CPython 3.15, on this kernel", "amd64", "forky", "python3.15", NEW, None, ()
    ),
    Row(
        "pypy3.9",
        "PyPy of Debian 12, on this kernel",
        "amd64",
        "bookworm",
        "pypy3",
        ["pypy3"],
        None,
        (),
    ),
    Row(
        "pypy3.11",
        "the newest PyPy of Debian, on this kernel",
        "amd64",
        "forky",
        "pypy3",
        ["pypy3"],
        None,
        (),
    ),
)

# What the tests' devices, qdiscs, filters and actions are made of, and some of their relatives.
MODULES = (
    "tun veth ifb dummy bridge macvlan macvtap tap ipvlan 8021q "
    "sch_ingress sch_htb sch_prio sch_fq_codel sch_tbf cls_u32 cls_bpf "
    "cls_matchall cls_flower cls_fw cls_basic act_mirred act_gact act_skbedit act_vlan act_police "
    "act_pedit act_bpf"
)

# A line that the run inside tells starts so; all else on the console is for the reader.
MARK = "@nlraw "

# The clock that TCG keeps well on a busy machine; the rest is speed (translated code is found again
# at the same address).
SPEED = "clocksource=hpet tsc=unstable mitigations=off norandmaps"

PLACE = "/nlraw"  # of the tree, in a root
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": PLACE + ":/wheels",
}

# A guest's init. The shell stays, to reap whatever its first process leaves; if it fails so does
# the guest (panic=-1).
GUEST = """\
#!/bin/sh
mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts pts /dev/pts
for place in /tmp /run /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs $place; done
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
for module in /modules/*; do insmod $module || echo "no $module"; done
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
cd {place}
env -i {environment} {command} || echo "exit $?"
sleep 1  # the console's last words
echo b >/proc/sysrq-trigger
"""

# The first process of namespaces on this kernel, mount, PID and network; all that it mounts and
# starts ends with it. Not chroot(2): in such a root the kernel makes no user namespaces.
HERE = """\
set -e
mount --bind {root} {root}
cd {root}
mount -t proc proc proc
mount -t sysfs sys sys
mount --rbind /dev dev
for place in tmp run root; do mount -t tmpfs -o mode=1777 tmpfs $place; done
mount --bind {tree} .{place}
mount --bind {wheels} wheels
mount -o remount,bind,ro .
pivot_root . .
umount -l .
cd {place}
ip link set lo up
env -i {environment} {command} || echo "exit $?"
"""


class Unable(Exception):
    """Why a row cannot run, in one line."""


# ------------------------------------------------------------ inside: pytest, and what it sees


def inside(files):
    """Run the suite's files in this Python; report when each test begins and how it ended."""
    import pytest

    def tell(**what):
        sys.stdout.write("\n%s%s\n" % (MARK, json.dumps(what)))
        sys.stdout.flush()

    class Teller:
        """The plugin; setup, call and teardown of a test become one outcome."""

        def __init__(self):
            self.phases = []

        def pytest_runtest_logstart(self, nodeid):
            tell(begins=nodeid)

        def pytest_collectreport(self, report):
            if not report.passed:
                self.told(report.nodeid, [report])

        def pytest_runtest_logreport(self, report):
            self.phases.append(report)
            if report.when == "teardown":
                self.told(report.nodeid, self.phases)
                self.phases = []

        def told(self, name, reports):
            outcomes = [report.outcome for report in reports]
            outcome = next(
                (worse for worse in ("failed", "skipped") if worse in outcomes), "passed"
            )
            reason = ""
            for report in reports:
                if report.skipped and isinstance(report.longrepr, tuple):
                    reason = report.longrepr[2].replace("Skipped: ", "", 1)
                elif report.failed:
                    sys.stdout.write("\n%s\n%s\n" % (name, report.longreprtext))
                    reason = report.longreprtext.strip().rsplit("\n", 1)[-1]
            tell(
                test=name,
                outcome=outcome,
                reason=reason,
                seconds=sum(getattr(report, "duration", 0) for report in reports),
            )

    uname = os.uname()
    implementation = "PyPy " if sys.implementation.name == "pypy" else ""
    bits = 64 if sys.maxsize > 1 << 32 else 32
    tell(
        kernel=uname.release,
        machine="%s, %d bit, %s endian" % (uname.machine, bits, sys.byteorder),
        python=implementation + ".".join(map(str, sys.version_info[:3])),
    )
    options = [
        "-o",
        "addopts=",
        "-qq",
        "--no-header",
        "--no-summary",
        "-p",
        "no:cacheprovider",
    ]
    status = pytest.main(options + files, plugins=[Teller()])
    tell(finished=int(status))
    return 0


# ------------------------------------------------------------ outside: what a row is made of


class Workshop:
    """The work directory, with what is kept there and a copy of the tree."""

    def __init__(self, directory):
        self.directory = os.path.abspath(directory)

    def path(self, *names):
        path = os.path.join(self.directory, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def once(self, path, make, key=""):
        """Make a folder unless it was made before, whole, out of the same ``key``."""
        made, done = json.dumps(key), path + ".made"
        if os.path.exists(done):
            with open(done) as file:
                if file.read() == made:
                    return path
            os.remove(done)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        make(path)
        with open(done, "w") as file:
            file.write(made)
        return path

    def apt(self, architecture, suites):
        """The options that give apt a state of its own, with lists of no more than a day ago."""
        state = self.path("apt", "-".join((architecture,) + suites))
        for name in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d"):
            os.makedirs(os.path.join(state, name), exist_ok=True)
        with open(os.path.join(state, "status"), "w"):
            pass
        with open(os.path.join(state, "etc/sources.list"), "w") as file:
            for suite in suites:
                file.write("deb [signed-by=%s] %s %s main\n" % (KEYRING, mirror(), suite))
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "Dir::State": state + "/state",
            "Dir::State::status": state + "/status",
            "Dir::Cache": state + "/cache",
            "Dir::Etc": state + "/etc",
            "Dir::Etc::parts": "-",
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "0",
            "Acquire::Retries": "3",
        }
        options = ["-q"] + [
            word for setting in settings.items() for word in ("-o", "%s=%s" % setting)
        ]
        stamp = state + "/updated"
        if not os.path.exists(stamp) or time.time() - os.path.getmtime(stamp) > 86400:
            command.run("apt-get", *options, "update")
            with open(stamp, "w"):
                pass
        return options, state + "/cache/archives"

    def root(self, row):
        """A Debian root with a row's packages, unpacked.

        Nothing is configured, no script of a package has run.
        """
        packages = TOOLS + row.packages

        def make(path):
            options, archives = self.apt(row.architecture, (row.suite,))
            # exactly what is wanted, since rows share the archives; what is there already would not
            # be named
            nowhere = ["-o", "Dir::Cache::archives=" + path]
            os.mkdir(os.path.join(path, "partial"))
            printed = command.run(
                "apt-get", *options, *nowhere, "install", "-y", "--print-uris", *packages
            )
            os.rmdir(os.path.join(path, "partial"))
            names = re.findall(r"^'\S+' (\S+\.deb) ", printed, re.MULTILINE)
            command.run("apt-get", *options, "install", "-y", "--download-only", *packages)
            for name in names:
                command.run("dpkg-deb", "--extract", os.path.join(archives, name), path)
            for name in ("bin", "sbin", "lib", "lib64"):
                if not os.path.lexists(os.path.join(path, name)):
                    os.makedirs(os.path.join(path, "usr", name), exist_ok=True)
                    os.symlink("usr/" + name, os.path.join(path, name))
            for name in ("proc", "sys", "dev", "run", "tmp", "mnt", "root", PLACE, "wheels"):
                os.makedirs(os.path.join(path, name.lstrip("/")), exist_ok=True)
            if not os.path.exists(os.path.join(path, "bin/sh")):
                os.symlink("dash", os.path.join(path, "bin/sh"))
            if not os.path.exists(os.path.join(path, "usr/bin/awk")):
                os.symlink("mawk", os.path.join(path, "usr/bin/awk"))
            for name, text in ETC.items():
                with open(os.path.join(path, "etc", name), "w") as file:
                    file.write(text)
            for name in ("doc", "man", "locale", "info", "lintian", "bug"):
                shutil.rmtree(os.path.join(path, "usr/share", name), ignore_errors=True)
            if row.architecture in NATIVE:
                compile_in(path, row, "/usr/lib")
            else:
                for library in [
                    name for name in os.listdir(path + "/usr/lib") if re.match(r"python\d\.", name)
                ]:
                    self.compile(row, os.path.join(path, "usr/lib", library), "/usr/lib/" + library)

        name = "-".join([row.architecture, row.suite, row.packages[0]])
        return self.once(self.path("root", name), make, [packages, ETC])

    def compile(self, row, directory, place):
        """Compile a directory for a row's Python.

        That of another architecture too: this one's writes the same bytecode.
        """
        native = self.root(
            row if row.architecture in NATIVE else row._replace(architecture=NATIVE[0])
        )
        inside = native + "/wheels"
        os.rmdir(inside)
        os.rename(directory, inside)
        try:
            compile_in(native, row, "-s", "/wheels", "-p", place, "/wheels")
        finally:
            os.rename(inside, directory)
            os.mkdir(inside)

    def wheels(self, row):
        """The packages that the tests import, for a row's Python."""

        def install(path):
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--no-compile",
                "--target",
                path,
                "--python-version",
                OLDEST,
            ]
            command.run(*pip, "--only-binary=:all:", *WHEELS)
            if any(name.endswith(".so") for _, _, names in os.walk(path) for name in names):
                raise Unable("what pip installed is not pure Python")

        def make(path):
            os.rmdir(path)
            shutil.copytree(installed, path)
            self.compile(row, path, "/wheels")

        installed = self.once(self.path("wheels", "source"), install, [OLDEST] + WHEELS)
        return self.once(
            self.path("wheels", "-".join((row.suite, row.python))), make, [OLDEST] + WHEELS
        )

    def kernel(self, row):
        """The folder with a row's kernel, `vmlinuz`, and its `modules`, named in load order."""
        options, _ = self.apt(row.architecture, row.kernel.suites)
        known = command.run("apt-cache", *options, "search", "--names-only", r"^linux-image-[0-9]")
        pattern = r"^linux-image-\d[0-9.]*(?:-\d+|\+deb\S+?)-%s(?= )" % row.kernel.flavour
        packages = sorted(re.findall(pattern, known, re.MULTILINE), key=numbers)
        if not packages:
            raise Unable(
                "no kernel %s in %s" % (row.kernel.flavour, " or ".join(row.kernel.suites))
            )

        def make(path):
            needed = guest.kernel_packages(package, options)
            with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
                command.run(
                    "apt-get",
                    *options,
                    "download",
                    *sorted({package} | set(needed)),
                    cwd=scratch,
                )
                unpacked = os.path.join(scratch, "unpacked")
                for archive in [name for name in os.listdir(scratch) if name.endswith(".deb")]:
                    command.run("dpkg-deb", "--extract", archive, unpacked, cwd=scratch)
                files = [
                    os.path.join(parent, name)
                    for parent, _, names in os.walk(unpacked)
                    for name in names
                ]
                images = [file for file in files if os.path.basename(file).startswith("vmlinuz")]
                shutil.copy(images[0], os.path.join(path, "vmlinuz"))
                os.mkdir(os.path.join(path, "modules"))
                for position, (name, code) in enumerate(in_load_order(files)):
                    with open(
                        os.path.join(path, "modules", "%03d-%s.ko" % (position, name)), "wb"
                    ) as file:
                        file.write(code)

        for package in reversed(packages):
            try:
                return self.once(self.path("kernel", package), make, MODULES)
            except RuntimeError as error:  # a mirror may list what it does not hold
                refused = error
        raise refused

    def keep(self, story):
        """Add what a run told of a row to what its earlier runs told of other files.

        Return it all.
        """
        path = self.path("told", story.row.name + ".json")
        known = self.recall(story.row)
        if known:
            story.files = dict(known.files, **story.files)
        with open(path, "w") as file:
            json.dump(story.kept(), file)
        return story

    def recall(self, row):
        """What the last runs of a row told, or None."""
        path = self.path("told", row.name + ".json")
        if not os.path.exists(path):
            return None
        with open(path) as file:
            return Story(row, **json.load(file))


def mirror():
    """Where this machine gets Debian from."""
    sites = command.run(
        "apt-get",
        "indextargets",
        "--format",
        "$(SITE)",
        "Created-By: Packages",
        "Origin: Debian",
        "Component: main",
    )
    if not sites:
        raise Unable("apt is set to no mirror of Debian")
    return sites.split()[0]


def compile_in(root, row, *paths):
    """Write the bytecode of all Python files below paths of a root.

    Packages do so as they are configured, and here none was.
    """
    # unchecked: neither copies nor archives need to keep the times. What does not compile is meant
    # not to, and never imported.
    argv = [row.python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", *paths]
    line = " ".join(argv) + " || [ $? = 1 ]"
    command.run("chroot", root, "env", "-i", "PATH=/usr/bin:/bin", "sh", "-c", line)


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def in_load_order(files):
    """The wanted modules, and those that they depend on ahead of them, as (name, code)."""
    found = {}
    for file in files:
        stem = re.match(r"(.*)\.ko(\.xz)?$", os.path.basename(file))
        if stem:
            found[stem.group(1).replace("-", "_")] = file
    ordered = collections.OrderedDict()

    def add(name):
        if name in ordered or name not in found:  # what a package lacks is built in
            return
        with (lzma.open if found[name].endswith(".xz") else open)(found[name], "rb") as file:
            code = file.read()
        needs = re.search(rb"\0depends=([^\0]*)\0", code)
        for need in needs.group(1).decode().split(",") if needs else ():
            add(need.replace("-", "_"))
        ordered[name] = code

    for name in MODULES.split():
        add(name)
    return list(ordered.items())


def copy_tree(destination):
    """What is tested; a row may write there as it likes."""
    ignored = shutil.ignore_patterns(
        ".git", ".?*_cache", "__pycache__", ".hypothesis", ".venv*", "dist", "build", "*.egg-info"
    )
    shutil.copytree(TREE, destination, symlinks=True, ignore=ignored)


def needs(row):
    """Why a row cannot run on this machine, in one line, or None."""
    programs = [
        ("apt-get", "apt"),
        ("dpkg-deb", "dpkg"),
        ("unshare", "util-linux"),
        ("mount", "mount"),
    ]
    if row.kernel:
        programs += [("cpio", "cpio"), (row.kernel.program, row.kernel.package)]
    for program, package in programs:
        if shutil.which(program) is None:
            return "no %s (Debian package %s)" % (program, package)
    if not os.path.exists(KEYRING):
        return "no %s (Debian package debian-archive-keyring)" % KEYRING
    if os.geteuid() != 0:
        return "not root"
    return None


# ------------------------------------------------------------ a run


def run_row(workshop, row, files, patience):
    """Run a row to its end, or to that of its time; return what it told."""
    root, wheels = workshop.root(row), workshop.wheels(row)
    log = workshop.path("logs", row.name + ".txt")
    command = [row.python, "tests/tools/matrix.py", "--inside"] + [
        "tests/" + name for name in files
    ]
    with tempfile.TemporaryDirectory(dir=workshop.directory) as scratch:
        tree = os.path.join(scratch, "tree")
        copy_tree(tree)
        argv = (in_guest if row.kernel else in_root)(
            workshop, row, root, wheels, tree, scratch, command
        )
        began = time.monotonic()
        with open(log, "wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                pass
            finally:
                process.kill()
                process.wait()
    return workshop.keep(Story(row).told(read(log), files, time.monotonic() - began))


def in_guest(workshop, row, root, wheels, tree, scratch, command):
    """The argv that boots a row's kernel on its root."""
    kernel = workshop.kernel(row)
    initramfs = os.path.join(scratch, "initramfs")
    over = os.path.join(scratch, "over")
    os.mkdir(over)
    os.rename(tree, over + PLACE)
    shutil.copytree(wheels, over + "/wheels")
    shutil.copytree(kernel + "/modules", over + "/modules")
    with open(over + "/init", "w") as file:
        file.write(
            GUEST.format(place=PLACE, environment=in_words(ENVIRONMENT), command=" ".join(command))
        )
    os.chmod(over + "/init", 0o755)
    # the kernel unpacks one archive after another
    guest.pack(root, initramfs)
    guest.pack(over, initramfs + ".over")
    with open(initramfs, "ab") as file, open(initramfs + ".over", "rb") as more:
        shutil.copyfileobj(more, file)
    argv = [shutil.which(row.kernel.program), "-accel", "tcg", *row.kernel.machine, "-m", "3072"]
    argv += [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-nic",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
    ]
    arguments = "console=%s quiet panic=-1 rdinit=/init %s" % (row.kernel.console, SPEED)
    return argv + ["-kernel", kernel + "/vmlinuz", "-initrd", initramfs, "-append", arguments]


def in_root(workshop, row, root, wheels, tree, scratch, command):
    """The argv that runs a row on this kernel, in namespaces of its own."""
    root, tree, wheels = (shlex.quote(path) for path in (root, tree, wheels))
    script = HERE.format(
        root=root,
        tree=tree,
        wheels=wheels,
        place=PLACE,
        environment=in_words(ENVIRONMENT),
        command=" ".join(command),
    )
    unshare = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--net",
    ]
    return unshare + ["sh", "-c", script]


def in_words(environment):
    return " ".join("%s=%s" % item for item in environment.items())


# ------------------------------------------------------------ what it came to


def left_out(row, name):
    """Why a row leaves a test file out, or None."""
    return next((why for beginning, why in row.without if name.startswith(beginning)), None)


def below_tests(path):
    return os.path.relpath(os.path.abspath(path), TESTS)


def part_of(name):
    return os.path.dirname(name)


def suite():
    """The test files by their paths below tests/, in the order of the parts."""
    return [
        "%s/%s" % (part, name)
        for part in PARTS
        for name in sorted(os.listdir(os.path.join(TESTS, part)))
        if re.match(r"test_.*\.py$", name)
    ]


class Story:
    """The results of a row: the tests of each file's last run, and what was not finished."""

    def __init__(self, row, about=None, files=None, stopped=()):
        self.row = row
        self.about = about or {}
        self.files = files or {}
        self.stopped = list(stopped)

    def told(self, text, files, seconds):
        """Take what a run of some files said; return self."""
        tests, begun, finished = [], None, None
        for line in text.splitlines():
            if not line.startswith(MARK):
                continue
            try:
                told = json.loads(line[len(MARK) :])
            except ValueError:  # the kernel spoke in between
                continue
            if "begins" in told:
                begun = told["begins"]
            elif "test" in told:
                tests.append(told)
                begun = None
            elif "finished" in told:
                finished = told["finished"]
            else:
                self.about = told
        for name in files:
            mine = [test for test in tests if file_of(test["test"]) == name]
            if finished is not None or (mine and name != file_of(begun or "")):
                self.files[name] = mine
        if finished not in (0, 1, 5):  # of pytest: all passed, some failed, all deselected
            last = [
                line for line in text.splitlines() if line.strip() and not line.startswith(MARK)
            ][-1:]
            where = begun or "".join(last).strip()
            self.stopped.append("not finished after %.0f s: %s" % (seconds, where))
        return self

    def kept(self):
        return {"about": self.about, "files": self.files, "stopped": self.stopped}

    def cell(self, part):
        """Passed, skipped and failed tests of a part and their seconds; or why there are none."""
        here = [name for name in suite() if part in (None, part_of(name))]
        run = [name for name in here if name in self.files]
        reasons = {left_out(self.row, name) for name in here} - {None}
        wanted = [name for name in here if not left_out(self.row, name)]
        if not run:
            return "; ".join(sorted(reasons)) if reasons and not wanted else "not run"
        tests = [test for name in run for test in self.files[name]]
        if not tests:
            return "no test"
        counts = collections.Counter(test["outcome"] for test in tests)
        figures = "/".join(str(counts[outcome]) for outcome in ("passed", "skipped", "failed"))
        missing = len(set(wanted) - set(run))
        note = " (%d of %d files)" % (len(run), len(set(wanted) | set(run))) if missing else ""
        return "%s, %.0f s%s" % (figures, sum(test["seconds"] for test in tests), note)

    def wrong(self):
        """What went wrong, one line each."""
        tests = [test for name in sorted(self.files) for test in self.files[name]]
        lines = [
            "%s: %s" % (test["test"], test["reason"])
            for test in tests
            if test["outcome"] == "failed"
        ]
        return ["%s: %s" % (self.row.name, line) for line in lines + self.stopped]

    def reasons(self):
        tests = [test for name in self.files for test in self.files[name]]
        return collections.Counter(test["reason"] for test in tests if test["outcome"] == "skipped")


def file_of(test):
    return test.split("::")[0][len("tests/") :]


def table(stories, unable):
    """One row each, as Markdown."""
    lines = ["| row | kernel | machine | Python | %s | all |" % " | ".join(PARTS)]
    lines.append("| --- " * (len(PARTS) + 5) + "|")
    for row in ROWS:
        if row.name in unable:
            lines.append(
                "| %s | cannot run: %s |%s" % (row.name, unable[row.name], " |" * (len(PARTS) + 3))
            )
        elif row.name in stories:
            story = stories[row.name]
            about = [story.about.get(key, "?") for key in ("kernel", "machine", "python")]
            cells = [row.name] + about + [story.cell(part) for part in PARTS + (None,)]
            lines.append("| %s |" % " | ".join(cells))
    return "\n".join(lines)


def report(stories, unable):
    print(table(stories, unable))
    print("\nEach cell: passed/skipped/failed and the seconds of its tests.\n")
    for beginning, why in sorted(
        {missing for story in stories.values() for missing in story.row.without}
    ):
        print("left out of guests: tests/%s: %s" % (beginning, why))
    reasons = collections.defaultdict(list)
    for name, story in stories.items():
        for reason, count in story.reasons().items():
            reasons[reason].append("%s (%d)" % (name, count))
    for reason, rows in sorted(reasons.items()):
        print("skipped: %s: %s" % (reason, ", ".join(rows)))
    wrong = [line for story in stories.values() for line in story.wrong()]
    for line in wrong:
        print("WRONG: %s" % line)
    return wrong


def read(path):
    with open(path, errors="replace") as file:
        return file.read()


def main(arguments):
    parser = argparse.ArgumentParser(
        description="The test suite on other kernels, byte orders and Pythons."
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help="what to run; all of --list by default"
    )
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument(
        "--work", metavar="DIR", help="keep downloads and logs there, and use those that are there"
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=3600,
        metavar="SECONDS",
        help="the longest that a row may take",
    )
    parser.add_argument("--files", nargs="+", metavar="FILE", help="these test files alone")
    parser.add_argument(
        "--table",
        action="store_true",
        help="run nothing; print the last run of each file that --work holds",
    )
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        return inside(options.inside)
    if options.list:
        for row in ROWS:
            print("%-14s%s" % (row.name, row.about))
        return 0
    names = [row.name for row in ROWS]
    strange = set(options.rows) - set(names)
    if strange:
        parser.error("no row %s; --list names them" % ", ".join(sorted(strange)))
    if options.table and not options.work:
        parser.error("--table needs --work")
    files = [below_tests(name) for name in options.files] if options.files else suite()
    with contextlib.ExitStack() as stack:
        workshop = Workshop(
            options.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="nlraw-matrix-"))
        )
        if options.table:
            stories = {row.name: workshop.recall(row) for row in ROWS}
            return 1 if report({name: story for name, story in stories.items() if story}, {}) else 0
        stories, unable = {}, {}
        for row in ROWS:
            if options.rows and row.name not in options.rows:
                continue
            print("%s: %s" % (row.name, row.about), file=sys.stderr)
            try:
                reason = needs(row)
                if reason:
                    raise Unable(reason)
                chosen = [name for name in files if options.files or not left_out(row, name)]
                stories[row.name] = run_row(workshop, row, chosen, options.patience)
            except (Unable, RuntimeError) as error:  # of a program that failed: its last words
                unable[row.name] = str(error).strip().splitlines()[-1]
            else:
                print(table({row.name: stories[row.name]}, {}).splitlines()[-1], file=sys.stderr)
        return 1 if report(stories, unable) or unable else 0


if __name__ == "__main__":
    # so that what was started and mounted ends
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(sys.argv[1:]))
