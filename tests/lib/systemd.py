# SPDX-License-Identifier: Apache-2.0
"""A node with a real systemd as its process 1, in namespaces and in a cgroup of its own.

It has the machine's programs, but /run, /dev, /opt, /var/lib, /var/log, /var/tmp and /tmp of its
own. /etc/systemd/system is empty, and besides that systemd reads units from /run/units alone, where
the journal is. Nothing of it outlives the test.
"""

import os
import shutil
import subprocess
import time
import uuid

from lib import command, pods

SYSTEMD = "/lib/systemd/systemd"
UNITS = "/lib/systemd/system"
JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")

# Stands in for the targets of a distribution, which would start all of its services.
TARGET = "[Unit]\nDescription=Stand-in\nDefaultDependencies=no\n"
MULTI_USER = TARGET + "Wants=systemd-journald.socket systemd-journald.service\n"

# nlraw is copied before the directory that it lies in is hidden.
BOOT = """
set -eu
package=$1 systemd=$2
mount -t tmpfs tmpfs /run
mkdir -p /run/units /run/netns /run/lock /run/copy
cp -r "$package" /run/copy/nlraw
for directory in /tmp /var/tmp /var/log /var/lib /opt /usr/local /etc/systemd/system; do
    mount -t tmpfs tmpfs "$directory"
done
mv /run/copy /opt/nlraw
mkdir /usr/local/bin
printf '#!/bin/sh\nexec /usr/bin/python3 -I /opt/nlraw/nlraw "$@"\n' >/usr/local/bin/nlraw
chmod +x /usr/local/bin/nlraw
mount -t tmpfs -o mode=755 tmpfs /dev
mkdir /dev/net /dev/shm /dev/pts /dev/mqueue /dev/hugepages
mount -t devpts devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
while read -r name major minor; do mknod -m 666 "/dev/$name" c "$major" "$minor"; done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
net/tun 10 200
END
mkdir /run/machine
mount --bind /proc /run/machine
mount -t proc proc /proc
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
cd /run/units
while read -r unit; do cp "%(units)s/$unit" .; done <<END
%(journal)s
END
for name in sysinit basic shutdown; do printf %%s '%(target)s' >$name.target; done
printf %%s '%(multi_user)s' >multi-user.target
exec env -i container=nlraw-test PATH=/usr/sbin:/usr/bin \\
    SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units \\
    "$systemd" --system --unit=multi-user.target --log-target=journal --show-status=no
""" % {
    "units": UNITS,
    "journal": "\n".join(JOURNAL),
    "target": TARGET,
    "multi_user": MULTI_USER,
}


def missing():
    """The reason why no such node can be made here; None if one can."""
    reason = pods.missing()
    if reason is not None:
        return reason
    if os.geteuid() != 0:
        return "needs root"
    for program in ("setpriv", "unshare", "nsenter", "systemctl", "journalctl", SYSTEMD):
        if shutil.which(program) is None:
            return "not installed: " + program
    if not all(os.path.exists(os.path.join(UNITS, unit)) for unit in JOURNAL):
        return "no units of the journal in " + UNITS
    if not os.path.exists("/usr/bin/python3"):
        return "no /usr/bin/python3"
    if _cgroups() is None:
        return "no file system of cgroup version 2 is mounted"
    return None


def _cgroups():
    """Where cgroups of version 2 are mounted; None if they are not."""
    with open("/proc/self/mounts") as file:
        mounts = [line.split() for line in file]
    return next((place for _, place, kind, *_ in mounts if kind == "cgroup2"), None)


class Node:
    """The node, with nlraw in /opt/nlraw/nlraw. ``boot`` it, and ``close`` it in any case."""

    def __init__(self):
        self._cgroup = os.path.join(_cgroups(), "nlraw-test-" + uuid.uuid4().hex[:12])
        self._process = None
        self.pid = None

    def boot(self):
        os.mkdir(self._cgroup)
        enter = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
        argv = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", enter, self._cgroup, "unshare"]
        argv += ["--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child=KILL"]
        argv += ["--cgroup", "--ipc", "--uts", "--net", "sh", "-c", BOOT, "sh"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        self._process = subprocess.Popen(argv + [command.PACKAGE, SYSTEMD], **quiet)
        self.wait_for(self._has_booted)

    def _has_booted(self):
        assert self._process.poll() is None, "systemd has ended"
        if self.pid is None:
            path = "/proc/%d/task/%d/children" % (self._process.pid, self._process.pid)
            with open(path) as file:
                children = file.read().split()
            self.pid = int(children[0]) if children else None
        if self.pid is None:
            return False
        done = self.attempt("systemctl", "is-active", "multi-user.target")
        return done.out == "active\n"

    def attempt(self, *argv, **options):
        """Run a program on the node, to its end."""
        enter = [
            "nsenter",
            "--target",
            str(self.pid),
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--net",
        ]
        env = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        return command.attempt(*enter + list(argv), timeout=command.PATIENCE, env=env, **options)

    def run(self, *argv, **options):
        """Run a program on the node that must succeed; return what it printed."""
        done = self.attempt(*argv, **options)
        assert done.status == 0, (argv, done, self.journal())
        return done.out

    def deploy(self, name, *changes):
        """Print a unit on the node, with changes (old text, new text), and load it."""
        text = self.run("nlraw", "deploy", name)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.run("tee", "/etc/systemd/system/" + name, input=text)
        self.run("systemctl", "daemon-reload")

    def pin(self, name, pod):
        """Mount a pod's namespace where CNI plugins do."""
        path = "/run/netns/" + name
        source = "/run/machine/%d/ns/net" % pod.child().pid  # by its number outside
        self.run("sh", "-c", ': >"$0" && mount --bind "$1" "$0"', path, source)
        return path

    def show(self, unit, name):
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def journal(self, *options):
        """What is in the journal, a line each."""
        self.attempt("journalctl", "--sync")
        done = self.attempt("journalctl", "--no-pager", "--output=short", *options)
        return done.out

    def wait_for(self, condition, patience=command.PATIENCE):
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, self.journal() if self.pid else "no systemd"
            time.sleep(0.05)

    def close(self):
        if self._process is not None:
            self._process.kill()  # the kernel kills the first process of the PID namespace then
            self._process.wait()
        for _ in range(200):
            try:
                for parent, _, _ in os.walk(self._cgroup, topdown=False):
                    os.rmdir(parent)
                break
            except OSError:  # its processes are still ending
                time.sleep(0.05)
