# SPDX-License-Identifier: Apache-2.0
"""A real guest behind a TAP, and pings that tell it from the pod it lives in.

The guest is Debian's cloud kernel, unpacked and not installed, with an initramfs of busybox,
iproute2's `ip` and the virtio modules. It runs under QEMU's TCG, which needs no /dev/kvm. It runs
the commands that configure its network, and then does nothing but answer.

The pod's own kernel holds the guest's addresses too, and answers whenever the redirect to the TAP
is missing: a reply alone proves nothing. So each guest is given a TTL of its own, which is its
IPv6 hop limit too, and every ping says which TTL answered it.

Whatever runs in a network namespace takes a `prefix`, the argv that enters it, such as `["ip",
"netns", "exec", "pod"]`. It must end in exec(2): the process we hold is then the one we want.

    image = build(tmp_path)
    with Pinger(node, "10.9.8.2", tmp_path / "pings") as pinger:
        with Guest(pod, image, tmp_path / "console", card("tap0_urunc", mac),
                   commands("10.9.8.2/24"), ttl=77) as guest:
            first = pinger.wait_for(77, seconds=30)
            ...
            assert all(ping.ttl == 77 for ping in pinger.stop()[first.sequence:])
            guest.kill()
"""

import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from lib import command

# What pings, as a process of its own.
PING = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ping.py")

QEMU = "qemu-system-x86_64"
METAPACKAGE = "linux-image-cloud-amd64"

# In load order: dpkg-deb leaves no modules.dep. What a package lacks is built in, as most is from
# 6.12 on.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)

# The kernel makes NAME=VALUE arguments that it does not know init's environment. If a step fails,
# or when the sleep ends, so does init: panic=-1 and -no-reboot then end QEMU, and no guest is left
# behind. arp_ignore: a card answers for its own addresses only, so that one on the TAP of another
# uplink is not heard. ip: busybox's own, which it prefers, cannot add a neighbour.
INIT = """\
#!/bin/sh
set -e
mount -t proc proc /proc
for module in /modules/*; do insmod "$module"; done
echo "$guest_ttl" >/proc/sys/net/ipv4/ip_default_ttl
for limit in /proc/sys/net/ipv6/conf/*/hop_limit; do echo "$guest_ttl" >"$limit"; done
echo 1 >/proc/sys/net/ipv4/conf/all/arp_notify
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
ip() { /bin/ip "$@"; }
. /network
echo "guest up: ttl $guest_ttl"
exec sleep 3600
"""

Image = collections.namedtuple("Image", "kernel initramfs")

# `sent` and `received` are time.monotonic(); `received` and `ttl` are None while there is no reply.
Ping = collections.namedtuple("Ping", "sequence sent received ttl")


def missing():
    """Return why no guest can be built here, in one line, or None."""
    for program, package in (
        (QEMU, "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("cpio", "cpio"),
        ("apt-get", "apt"),
        ("dpkg-deb", "dpkg"),
        ("ip", "iproute2"),
    ):
        if shutil.which(program) is None:
            return "no {} (Debian package {})".format(program, package)
    try:
        command.run("dpkg-query", "--listfiles", "busybox-static")
        _kernel_packages()
    except RuntimeError as error:
        return " ".join(str(error).split())
    return None


def build(directory, cache=None):
    """Return an Image whose initramfs is made in `directory`; it serves every guest.

    The kernel is kept in `cache`, by default the user's, and downloaded only when apt knows a newer
    one.
    """
    kernel = _kernel(
        cache
        or os.path.join(
            os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nlraw-guest"
        )
    )
    initramfs = os.path.abspath(os.path.join(str(directory), "initramfs"))
    with tempfile.TemporaryDirectory() as root:
        shutil.copytree(os.path.join(kernel, "modules"), os.path.join(root, "modules"))
        for name in ("bin", "proc"):
            os.mkdir(os.path.join(root, name))
        shutil.copy(shutil.which("busybox"), os.path.join(root, "bin"))
        for applet in ("sh", "mount", "insmod", "sleep"):
            os.symlink("busybox", os.path.join(root, "bin", applet))
        _install(shutil.which("ip"), root)
        with open(os.path.join(root, "init"), "w") as init:
            init.write(INIT)
        os.chmod(init.name, 0o755)
        pack(root, initramfs)
    return Image(os.path.join(kernel, "vmlinuz"), initramfs)


def _install(program, root):
    """Copy a program to `root`/bin, and to their places the libraries that it is linked with."""
    shutil.copy(program, os.path.join(root, "bin"))
    for library in re.findall(r"(/\S+) \(0x", command.run("ldd", program)):
        os.makedirs(root + os.path.dirname(library), exist_ok=True)
        shutil.copy(library, root + library)


def pack(root, initramfs):
    """Write all that is in the folder `root` to the file `initramfs`, as the kernel unpacks it."""
    names = [
        os.path.relpath(os.path.join(parent, name), root)
        for parent, folders, files in os.walk(root)
        for name in folders + files
    ]
    command.run(
        "cpio",
        "--create",
        "--format=newc",
        "--quiet",
        "--file=" + os.path.abspath(initramfs),
        cwd=root,
        input="\n".join(names),
    )


def _kernel(cache):
    """Return the folder in `cache` with the newest kernel, and its `modules` in load order."""
    packages = _kernel_packages()
    kept = os.path.join(cache, packages[0])
    if os.path.isdir(kept):
        return kept
    os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        command.run(
            "apt-get",
            "--quiet",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            *packages,
            cwd=scratch,
        )
        unpacked = os.path.join(scratch, "unpacked")
        for archive in [name for name in os.listdir(scratch) if name.endswith(".deb")]:
            command.run("dpkg-deb", "--extract", archive, unpacked, cwd=scratch)
        files = {
            name: os.path.join(parent, name)
            for parent, _, names in os.walk(unpacked)
            for name in names
        }
        chosen = os.path.join(scratch, "chosen")
        os.makedirs(os.path.join(chosen, "modules"))
        shutil.copy(
            next(path for name, path in files.items() if name.startswith("vmlinuz")),
            os.path.join(chosen, "vmlinuz"),
        )
        for position, name in enumerate(MODULES):
            for found in {name + ".ko", name + ".ko.xz"} & set(files):
                shutil.copy(
                    files[found], os.path.join(chosen, "modules", "{}-{}".format(position, found))
                )
        try:
            os.rename(chosen, kept)
        except OSError:
            if not os.path.isdir(kept):  # else another run was first, with the same kernel
                raise
    return kept


def _kernel_packages():
    """Return the packages that make up the newest cloud kernel of the suite that apt is set to."""
    packages = kernel_packages(METAPACKAGE)
    if not packages:
        raise RuntimeError("apt knows no kernel that {} stands for".format(METAPACKAGE))
    return packages


def kernel_packages(package, options=()):
    """Return the packages with files that a kernel's package stands for.

    `options` are apt's own, if any.
    """
    known = command.run("apt-cache", *options, "depends", "--recurse", "--important", package)
    # From 7.2 on linux-image-* is empty, and depends on linux-binary-* and linux-modules-*.
    return re.findall(r"^linux-(?:image|binary|modules)-\d\S*", known, re.MULTILINE)


class _Program:
    """A program that runs beside the test, its output in the file `log`, until the block ends."""

    def __init__(self, argv, log, **options):
        self._log = str(log)
        with open(self._log, "wb") as output:
            self.process = subprocess.Popen(argv, stdout=output, stderr=output, **options)

    @property
    def pid(self):
        """The program's own process ID, once `prefix` has come to its exec(2)."""
        return self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill()

    def kill(self):
        """Send SIGKILL and reap: when this returns, nothing of the program is left.

        Twice is harmless.
        """
        self.process.kill()
        self.process.communicate()

    def output(self):
        """Return what the program has written so far."""
        with open(self._log, errors="replace") as log:
            return log.read()


def card(tap, mac, mtu=None):
    """Return QEMU's arguments for the guest's one network card, on the existing TAP `tap`.

    `mtu` is handed to the guest (host_mtu); without it 1500.
    """
    # status=off: carrier from the start. A 7.2 driver else has none yet when arp_notify speaks,
    # unheard.
    device = "virtio-net-pci,netdev=n0,romfile=,status=off,mac=" + mac
    return [
        "-netdev",
        "tap,id=n0,ifname={},script=no,downscript=no".format(tap),
        "-device",
        device if mtu is None else "{},host_mtu={}".format(device, mtu),
    ]


def commands(address):
    """Return the commands that give the guest's one card an IPv4 address with a prefix length."""
    return ["ip address add {} dev eth0".format(address), "ip link set eth0 up"]


class Guest(_Program):
    """QEMU with the network cards of the arguments `cards`. It needs the rights to open their TAPs.

    The guest runs `commands`, shell commands, to configure its network. `log` holds its console.
    """

    def __init__(self, prefix, image, log, cards, commands, ttl):
        initramfs = str(log) + ".initramfs"
        with tempfile.TemporaryDirectory() as root:
            with open(os.path.join(root, "network"), "w") as network:
                network.write("".join(line + "\n" for line in commands))
            pack(root, initramfs)
        # the kernel unpacks one archive after another
        with open(initramfs, "ab") as file, open(image.initramfs, "rb") as more:
            shutil.copyfileobj(more, file)
        super().__init__(
            list(prefix)
            + [
                shutil.which(QEMU),
                "-accel",
                "tcg",
                "-M",
                "pc,acpi=off",
                "-m",
                "128",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-serial",
                "stdio",
                "-no-reboot",
                "-kernel",
                image.kernel,
                "-initrd",
                initramfs,
                "-append",
                "console=ttyS0 quiet panic=-1 guest_ttl={}".format(ttl),
            ]
            + list(cards),
            log,
            stdin=subprocess.DEVNULL,
        )

    console = _Program.output  # the guest's serial line, and QEMU's own complaints

    def wait_until_up(self, seconds):
        """Return the console of a guest that has run all of its commands.

        Raise TimeoutError if that takes more than so many seconds.
        """
        deadline = time.monotonic() + seconds
        while "guest up: " not in self.console():
            if time.monotonic() > deadline:
                raise TimeoutError("the guest is not up:\n" + self.console())
            time.sleep(0.02)
        return self.console()


class Pinger(_Program):
    """ICMP echo requests to `address`, one every `interval` seconds, from where `prefix` enters."""

    def __init__(self, prefix, address, log, interval=0.05):
        self._address = address
        super().__init__(
            list(prefix) + [sys.executable, "-I", "-S", PING, address, str(interval)],
            log,
            stdin=subprocess.PIPE,
        )

    def pings(self):
        """Return every Ping sent so far, oldest first."""
        if self.process.poll() not in (None, 0):
            raise RuntimeError(
                "pinging {}: exit {}: {}".format(
                    self._address, self.process.returncode, self.output()
                )
            )
        pings = []
        for sequence, moment, ttl in re.findall(
            r"^(\d+) (\S+) (\S+)\n", self.output(), re.MULTILINE
        ):
            if ttl == "-":
                pings.append(Ping(int(sequence), float(moment), None, None))
            elif pings[int(sequence)].ttl is None:
                pings[int(sequence)] = pings[int(sequence)]._replace(
                    received=float(moment), ttl=int(ttl)
                )
        return pings

    def wait_for(self, ttl, seconds):
        """Return the first Ping answered with this TTL.

        Raise TimeoutError if there is none in `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            pings = self.pings()
            for ping in pings:
                if ping.ttl == ttl:
                    return ping
            if time.monotonic() > deadline:
                raise TimeoutError(
                    "no reply with TTL {} from {} in {} s, but these: {}".format(
                        ttl, self._address, seconds, sorted({ping.ttl for ping in pings} - {None})
                    )
                )
            time.sleep(0.01)

    def stop(self):
        """Send no more, give the last replies a second to come in, and return all pings."""
        self.process.stdin.close()
        self.process.wait()
        return self.pings()
