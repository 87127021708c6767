# SPDX-License-Identifier: Apache-2.0
"""Files with which a node runs nlraw: units of systemd, DaemonSets, hooks of container runtimes.

The files in the folder `deploy` name nlraw in /opt/nlraw and the Python of the distribution. A
printed file names the copy of nlraw that prints it, and the Python that runs that copy.
"""

import os
import sys

from .errors import Invalid
from .mistakes import nearest, needs_no_quotes
from .output import complain, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple

# The files: name, where each belongs, what it does.
FILES = (
    ("nlraw-watch.service", "/etc/systemd/system", "remove an orphan when its VMM dies"),
    ("nlraw-sweep.service", "/etc/systemd/system", "remove the orphans of all namespaces"),
    ("nlraw-sweep.timer", "/etc/systemd/system", "start the sweep once a minute"),
    ("nlraw-watch.yaml", "kubectl apply -f", "the watch, on each node of a cluster"),
    ("nlraw-sweep.yaml", "kubectl apply -f", "the sweep, on each node of a cluster"),
    (
        "hooks.d.json",
        "/usr/share/containers/oci/hooks.d/nlraw.json",
        "the hook, for podman and CRI-O",
    ),
    (
        "base-runtime-spec.json",
        "part of a config.json",
        "the hook, for containerd, runc and crun",
    ),
)

# What `text` replaces in the files: the Python, the copy of nlraw, the image.
_PYTHON, _PROGRAM, _IMAGE = "/usr/bin/python3", "/opt/nlraw/nlraw/__main__.py", "python:3.13-slim"

# Directories that the units hide from a service (ProtectHome=, PrivateTmp=).
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")


def run(name: "Optional[str]") -> None:
    """Run `nlraw deploy`: print a file, or list the files. Raises `Invalid`."""
    if name is None:
        say(listing())
        return
    say(text(name), end="")
    for path, advice in hidden(name):
        complain("the sandbox of %s hides %s: %s" % (name, path, advice))


def listing() -> str:
    """Return a line on each file."""
    return "\n".join("%-22s  %-44s  %s" % file for file in FILES)


def text(name: str) -> str:
    """Return the content of a file. Raises `Invalid` if there is no file of that name."""
    names = [each for each, _, _ in FILES]
    if name not in names:
        meant = nearest(name, names)
        advice = "did you mean `%s`?" % meant if meant else "`nlraw deploy` lists them"
        raise Invalid("there is no such file; " + advice, "deploy", name)
    folder = os.path.dirname(os.path.abspath(__file__))
    loader: Any = globals()["__spec__"].loader  # not open(): it reads a zip too
    content: str = loader.get_data(os.path.join(folder, "deploy", name)).decode("utf-8")
    if name.endswith(".yaml"):  # bytecode is for one version of Python
        return content.replace(_IMAGE, "python:%d.%d-slim" % sys.version_info[:2])
    return content.replace(_PYTHON, _checked(sys.executable)).replace(_PROGRAM, _checked(program()))


def program() -> str:
    """Return the path by which Python runs this copy of nlraw: a zip, or the file of a folder."""
    folder = os.path.dirname(os.path.abspath(__file__))
    archive = os.path.dirname(folder)
    return archive if os.path.isfile(archive) else os.path.join(folder, "__main__.py")


def hidden(name: str) -> "List[Tuple[str, str]]":
    """Return the paths in a file that the sandbox of its service hides, each with what to do."""
    if not name.endswith(".service"):
        return []
    advice = {
        sys.executable: "print the file with another Python, such as /usr/bin/python3",
        program(): "install nlraw elsewhere, as in /opt",
    }
    return [(path, advice[path]) for path in advice if path.startswith(_HIDDEN)]


def _checked(path: str) -> str:
    """Return a path that needs no quotes in any of the files. Raises `Invalid` for others."""
    if not path.startswith("/"):
        words = "the path of this Python is not known; start it by its full path"
        raise Invalid(words, "deploy", path)
    if not needs_no_quotes(path):
        words = "a path with other characters than letters, digits and /-_.+@:, cannot be used"
        raise Invalid(words, "deploy", path)
    return path
