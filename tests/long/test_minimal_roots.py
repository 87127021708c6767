# SPDX-License-Identifier: Apache-2.0
"""nlraw on Pythons that lack much, or are another, each in a root of its own (chroot).

    NLRAW_TEST_ROOTS=/var/tmp/roots python -m pytest -s tests/long/test_minimal_roots.py

Debian's python3-minimal as debootstrap installs it (12 has neither ctypes nor json nor os.setns, 13
has no ctypes), pypy3, and a CPython built on musl. It needs Debian's archive. What takes minutes to
make is kept in the directory NLRAW_TEST_ROOTS, if it is given, and used again.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from lib import command, pods, readme
from nlraw import commands

SOURCES = "/etc/apt/sources.list.d/debian.sources"

# Of Debian's python3-minimal: which of these are missing.
LACKS = {"bookworm": ["ctypes", "json", "os.setns"], "trixie": ["ctypes"]}
EXPECTED_TO_BE_THERE = "ctypes json os.setns"

WHAT_IS_MISSING = """
import os
missing = [] if hasattr(os, "setns") else ["os.setns"]
for name in ("ctypes", "json"):
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
print(*sorted(missing))
"""

# In a mount namespace of its own, which ends with it: nlraw as a folder and as one file, a pod's
# namespace, /proc and the TUN device, and nothing else of the machine's.
ENTER = """
root=$1 package=$2 bundle=$3 pod=$4
shift 4
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t tmpfs tmpfs opt
mkdir -p opt/nlraw opt/netns
cp -R "$package" opt/nlraw/nlraw
cp "$bundle" opt/nlraw.pyz
: >opt/netns/pod
mount --bind "/proc/$pod/ns/net" opt/netns/pod
mount -t tmpfs tmpfs dev
mkdir dev/net
for device in null net/tun; do : >"dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
exec chroot . env -i PATH=/usr/bin "$@"
"""

FOLDER = ("-I", "/opt/nlraw/nlraw")
ONE_FILE = ("-I", "/opt/nlraw.pyz")

CURRENT = ("-n", "current")


def mirror():
    """Where this Debian gets its packages from."""
    if not os.path.exists(SOURCES):
        pytest.skip("no " + SOURCES)
    with open(SOURCES) as file:
        return re.search(r"^URIs: *(\S+)", file.read(), re.MULTILINE).group(1)


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip("not installed: " + program)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Make a directory once: ``kept(name, make)`` calls ``make`` with its path if it is absent."""
    place = os.environ.get("NLRAW_TEST_ROOTS") or str(tmp_path_factory.mktemp("roots"))

    def get(name, make):
        path = os.path.join(place, name)
        if not os.path.exists(path):
            os.makedirs(place, exist_ok=True)
            shutil.rmtree(path + ".new", ignore_errors=True)
            make(path + ".new")
            os.rename(path + ".new", path)
        return path

    return get


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("bundle") / "nlraw.pyz")
    command.run(*command.BUNDLE, path, cwd="/", env=command.environment())
    return path


@pytest.fixture(scope="module", params=sorted(LACKS))
def suite(request, kept):
    """A Debian with nothing but python3-minimal; its name and its root."""
    need("debootstrap", "unshare")

    def make(path):
        # in a mount namespace of its own, for what it mounts, and may leave mounted
        command.run(
            *(
                "unshare --mount --propagation private debootstrap --variant=minbase "
                "--include=python3-minimal".split()
            ),
            request.param,
            path,
            mirror(),
        )

    return request.param, kept(request.param, make)


@pytest.fixture
def minimal(suite, bundle, make_pod):
    """Run nlraw in a root and a pod's network namespace: ``minimal(pod, arguments, where=other)``.

    ``where`` is the pod that is pinned as /opt/netns/pod, by default the same.
    """
    return lambda pod, *arguments, **options: inside(suite[1], bundle, pod, *arguments, **options)


def inside(
    root, bundle, pod, *arguments, where=None, program=("/usr/bin/python3",) + FOLDER, **streams
):
    argv = [
        "ip",
        "netns",
        "exec",
        pod.name,
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-euc",
        ENTER,
        "sh",
    ]
    argv += [root, command.PACKAGE, bundle, str((where or pod).child().pid)]
    return command.nlraw(*arguments, argv=argv + list(program), **streams)


# ---------------------------------------------------------------- python3-minimal


def test_there_is_nothing_but_python3_minimal(suite):
    name, root = suite
    listed = command.run(
        "chroot",
        root,
        "dpkg-query",
        "--show",
        "--showformat=${db:Status-Abbrev} ${Package}\n",
        "*python3*",
    )
    installed = [line.split()[1] for line in listed.splitlines() if line.startswith("ii")]
    assert "python3-minimal" in installed
    assert [
        each for each in installed if not re.match(r"(lib)?python3(\.\d+)?-minimal\Z", each)
    ] == []
    missing = command.run("chroot", root, "/usr/bin/python3", "-I", "-c", WHAT_IS_MISSING)
    assert missing.split() == LACKS[name]
    print(
        "\n%s: %s; missing: %s"
        % (name, command.run("chroot", root, "/usr/bin/python3", "--version").strip(), LACKS[name])
    )


@pytest.mark.parametrize("form", [FOLDER, ONE_FILE], ids=["folder", "one file"])
def test_an_orphan_in_the_current_namespace_is_seen_and_removed(minimal, pod, form):
    before = pod.state()
    pod.add_orphan()
    program = ("/usr/bin/python3",) + form
    done = minimal(pod, "scan", program=program)
    assert (done.status, done.err) == (0, "")
    assert "tap0_urunc  orphan" in done.out
    done = minimal(pod, "cleanup", *CURRENT, program=program)
    assert (done.status, done.err) == (0, "")
    assert pod.state() == before


def test_a_tap_in_use_stays(minimal, pod):
    pod.add_tap()
    pod.hold()
    before = pod.state()
    assert minimal(pod, "cleanup", *CURRENT).status == 3
    assert pod.state() == before


def test_setup_makes_the_next_vms_network(minimal, pod):
    before = pod.state()
    pod.add_orphan()
    done = minimal(pod, "setup", *CURRENT)
    assert (done.status, done.err) == (0, "")
    pod.check_pair()
    assert minimal(pod, "cleanup", *CURRENT).status == 0
    assert pod.state() == before


def test_json_needs_no_module_json(minimal, pod):
    pod.add_orphan()
    (tap,) = minimal(pod, "scan", "--json").document["taps"]
    assert (tap["ifname"], tap["verdict"]) == (pods.TAP, "orphan")
    assert minimal(pod, "setup", "--json", *CURRENT).document["outcome"] == "created"
    assert minimal(pod, "cleanup", "--json", *CURRENT).document["outcome"] == "cleaned"


def can_enter(suite):
    return "os.setns" not in LACKS[suite[0]]


def check_refusal(done):
    """One line that says what is missing."""
    assert done.status == 1
    assert re.match(
        r"nlraw: [^\n]*os\.setns \(3\.12 and newer\) nor ctypes "
        r"\(Debian: libpython3-stdlib\)[^\n]*\n\Z",
        done.err,
    )


def test_another_namespace_is_entered_where_this_python_can(suite, minimal, make_pod):
    here, there = make_pod(), make_pod()
    before = there.state()
    index = there.add_orphan()
    done = minimal(here, "cleanup", "--netns", "/opt/netns/pod", where=there)
    if can_enter(suite):
        assert (done.status, done.err) == (0, "")
        assert there.state() == before
    else:
        check_refusal(done)
        assert there.links()[pods.TAP]["ifindex"] == index


def test_a_sweep_says_what_is_missing_too(suite, minimal, make_pod):
    here, there = make_pod(), make_pod()
    there.add_orphan()
    done = minimal(here, "sweep", "--dir", "/opt/netns", "--json", where=there)
    totals = done.document["totals"]
    if can_enter(suite):
        assert (done.status, done.err) == (0, "")
        assert totals["deleted"] == 1
    else:
        check_refusal(done)
        assert (totals["namespaces"], totals["failed"]) == (1, 1)


def test_the_selftest_says_what_this_python_lacks(suite, minimal, pod):
    done = minimal(pod, "selftest")
    if can_enter(suite):
        assert done.status == 0, done.out
    else:
        assert done.status == 1 and "libpython3-stdlib" in done.out


@pytest.mark.skipif("hook" not in commands.COMMANDS, reason="this nlraw has no hook")
def test_the_hook_works_or_says_what_is_missing(suite, minimal, make_pod, tmp_path):
    here, there = make_pod(), make_pod()
    there.add_orphan()
    state = {
        "ociVersion": "1.0.2",
        "id": "vm",
        "status": "creating",
        "pid": there.child().pid,
        "bundle": "/opt",
    }
    (tmp_path / "state").write_text(json.dumps(state))
    done = minimal(here, "hook", streams="<%s" % (tmp_path / "state"))
    if can_enter(suite):
        assert (done.status, done.err) == (0, "")
        assert pods.TAP not in there.links()
    else:
        assert done.status == 1
        assert re.match(r"nlraw: [^\n]*libpython3-stdlib[^\n]*\n\Z", done.err)


@pytest.mark.parametrize("arguments", ["--help", "--version", "sweep --help"])
def test_it_tells_of_itself(minimal, pod, arguments):
    assert minimal(pod, *arguments.split()) == command.nlraw(*arguments.split())


# ---------------------------------------------------------------- other Pythons


# What is there of the suite for a Python that has just been unpacked: the last Hypothesis that is
# Python alone.
TOOLS = ["pytest <9", "hypothesis <6.142"]


@pytest.fixture(scope="module")
def pypy(kept):
    """A PyPy in a virtual environment, and where the tools are, if not there."""
    need("pypy3")

    def make(path):
        command.run("pypy3", "-m", "venv", path)
        command.run(os.path.join(path, "bin", "python"), "-m", "pip", "install", "--quiet", *TOOLS)

    return [os.path.join(kept("pypy", make), "bin", "python")]


# Debian has its sources; musl's gcc must be told where the kernel's headers are, and that this is
# no glibc.
BUILD = r"""
mkdir -p apt/state/lists/partial apt/cache/archives/partial apt/etc headers zlib source
: >apt/status
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb-src [signed-by=$keyring] $1 trixie main" >apt/etc/sources.list
options="-qq -o Dir::State=$PWD/apt/state -o Dir::State::status=$PWD/apt/status
 -o Dir::Cache=$PWD/apt/cache -o Dir::Etc=$PWD/apt/etc -o Dir::Etc::parts=-
 -o APT::Sandbox::User=root"
apt-get $options update
apt-get $options --download-only source zlib python3.13
tar -x -f zlib_*.orig.tar.?z -C zlib --strip-components=1
tar -x -f python3.13_*.orig.tar.?z -C source --strip-components=1
ln -s /usr/include/linux /usr/include/asm-generic headers
ln -s "/usr/include/$(gcc --print-multiarch)/asm" headers
printf '#!/bin/sh\n[ "$1" = --print-multiarch ] || exec musl-gcc -idirafter "%s/headers" "$@"\n' \
    "$PWD" >cc
chmod +x cc
cd zlib # which Hypothesis takes
CC="$PWD/../cc" CFLAGS="-O1 -fPIC" ./configure --static
make -s libz.a
cd ../source
./configure -q --prefix=/musl CC="$PWD/../cc" OPT=-O1 --without-ensurepip --disable-test-modules \
 PKG_CONFIG=/bin/false ZLIB_CFLAGS="-I$PWD/../zlib" ZLIB_LIBS="$PWD/../zlib/libz.a"
make -s -j2
make -s install DESTDIR="$PWD/../installed"
cd ..
rm -rf source zlib apt *.dsc *.tar.*
"""


@pytest.fixture(scope="module")
def musl(kept):
    """A CPython on musl, and where the tools are. It has no ctypes: there is no libffi for musl."""
    need("musl-gcc", "make", "xz")

    def make(path):
        os.mkdir(path)
        with open(path + ".log", "w") as log:
            done = subprocess.run(
                ["sh", "-euc", BUILD, "sh", mirror()], cwd=path, stdout=log, stderr=log
            )
        assert done.returncode == 0, path + ".log tells why"
        tools = [
            "--no-compile",
            "--target",
            os.path.join(path, "tools"),
            "--python-version",
            "3.13",
            "--only-binary=:all:",
        ]
        command.run(sys.executable, "-m", "pip", "install", "--quiet", *(tools + TOOLS))

    home = kept("musl", make)
    with open(os.path.join(home, "installed/musl/bin/python3.13"), "rb") as file:
        assert b"/ld-musl-" in file.read()
    return [os.path.join(home, "installed/musl/bin/python3.13"), os.path.join(home, "tools")]


@pytest.fixture(params=["pypy", "musl"])
def other(request):
    return request.getfixturevalue(request.param)


def test_another_python_passes_what_needs_no_kernel(other):
    python, places = other[0], [command.ROOT] + other[1:]
    # --noconftest: what makes pods takes ctypes
    argv = [
        python,
        "-m",
        "pytest",
        "-q",
        "--noconftest",
        "-p",
        "no:cacheprovider",
    ]
    argv.append(os.path.join(readme.TREE, "tests", "unit"))
    environment = command.environment(PYTHONPATH=os.pathsep.join(places))
    done = command.attempt(*argv, cwd="/", env=environment, stderr=subprocess.STDOUT)
    version = command.run(
        python,
        "-c",
        "import platform as p; print(p.python_implementation(), p.python_version(), *p.libc_ver())",
    )
    print("\n%s: %s" % (version.strip(), done.out.splitlines()[-1]))
    assert done.status == 0, done.out


@pytest.mark.parametrize("form", ["-m nlraw", "one file"])
def test_another_python_plays_the_whole_story(other, bundle, make_pod, form):
    program = (other[0],) + (("-m", "nlraw") if form == "-m nlraw" else ("-I", bundle))
    pod = make_pod()
    before = pod.state()
    pod.add_orphan()
    where = ["--netns", pod.path]
    assert (
        command.nlraw("scan", "--json", *where, argv=program).document["outcome"] == "would-clean"
    )
    assert command.nlraw("setup", "--json", *where, argv=program).document["outcome"] == "created"
    pod.check_pair()
    holder = pod.hold()
    assert command.nlraw("cleanup", *where, argv=program).status == 3
    holder.kill()
    done = command.nlraw("cleanup", *where, argv=program)
    assert (done.status, done.err) == (0, "")
    assert pod.state() == before
    assert command.nlraw("selftest", argv=program).status == 0
