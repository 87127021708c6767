# SPDX-License-Identifier: Apache-2.0
"""`python3 -m bench.pictures`: real output of `nlraw selftest` and `sweep`, for the README.

Takes rich, and script(1) for the terminal. The sweep is of six pods in a mount namespace of their
own, which has a /run/netns of its own too: two orphans, one of them with nothing on its uplink, a
VM that runs, one that starts, and two pods without any.
"""

import os
import re
import subprocess
import sys
import tempfile

from nlraw import netns, tap

from . import lab
from .pods import MS_BIND, Pod, hide_mounts, mount

NAMED = "/run/netns"
COLUMNS = 104


def main():
    from rich.console import Console
    from rich.text import Text

    hide_mounts()
    os.makedirs(NAMED, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        mount(directory, NAMED, MS_BIND)
        commands = (("selftest.svg", ["selftest"]), ("sweep.svg", ["sweep", "--dir", NAMED]))
        for picture, arguments in commands:
            pods, held = node() if "sweep" in arguments else ([], [])
            console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))
            console.print(Text("$ nlraw " + " ".join(arguments), style="bold"))
            console.print(Text.from_ansi(on_terminal(arguments)))
            for descriptor in held:
                os.close(descriptor)
            for pod in pods:
                pod.close()
            svg = console.export_svg(title="nlraw " + arguments[0], unique_id=arguments[0])
            # no font from anywhere: the one that the reader has
            svg = re.sub(r"\s*(@font-face \{.*?\}|<!--.*?-->)", "", svg, flags=re.DOTALL).replace(
                "Fira Code", "monospace"
            )
            with open(os.path.join(lab.HERE, picture), "w") as file:
                file.write(svg + "\n")
    return 0


def node():
    """The six pods, and the descriptors of whom stands in for a VM."""
    pods = [Pod(os.path.join(NAMED, "pod%d" % number)) for number in range(1, 7)]
    for pod in pods:
        pod.uplink()
    for pod in pods[:3]:
        pod.orphan()
    pods[3].tap("tap0_urunc")
    with netns.Namespace(pods[2].path) as namespace:
        held = [tap.attach(namespace, "tap0_urunc")]
    pods[1].run(
        lambda: subprocess.run(["tc", "qdisc", "del", "dev", "eth0", "ingress"], check=True)
    )
    return pods, held


def on_terminal(arguments):
    root = os.path.dirname(lab.HERE)
    command = "stty cols %d; cd %s && %s -m nlraw %s" % (
        COLUMNS,
        root,
        sys.executable,
        " ".join(arguments),
    )
    told = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    return (
        told.stdout.decode("utf-8")
        .replace("\r\n", "\n")
        .replace(lab.PYTHON, "python3")
        .rstrip("\n")
    )


if __name__ == "__main__":
    sys.exit(main())
