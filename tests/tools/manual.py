# SPDX-License-Identifier: Apache-2.0
"""Write the manual page and bash's completion, from the tables of commands, options and files.

    python3 tests/tools/manual.py

They lie in nlraw/data, where the wheel has them from, and where a vendored copy has them too.
"""

import os
import sys

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
if __name__ == "__main__":
    sys.path.insert(0, TREE)

import nlraw
from nlraw import commands, deployment

PAGE = "share/man/man1/nlraw.1"
COMPLETION = "share/bash-completion/completions/nlraw"

# ---------------------------------------------------------------- the manual page: man(7)

HEAD = """\
.\\" SPDX-License-Identifier: Apache-2.0
.TH NLRAW 1 "" "nlraw %s" "User Commands"
.SH NAME
nlraw \\- remove orphan TAPs from the network namespaces of sandboxed containers
.SH SYNOPSIS
.B nlraw
.I COMMAND
.RI [ OPTION ...]
.SH DESCRIPTION
A container runtime that runs each pod in a VM connects the VM by a TAP. If the program that runs
the VM is killed, the TAP stays in the network namespace of the pod, and the next start fails.
.B nlraw
removes such leftovers, and the traffic control state that belongs to them.
.PP
A TAP that a program holds has a carrier, and is in use. A TAP without a carrier is an orphan. An
orphan is fresh if nobody has attached to it since it was made: its VM may be starting right now.
.SH COMMANDS
"""

TAIL = """\
.SH EXIT STATUS
.TP
.B 0
Done, or nothing to do.
.TP
.B 1
The system refused, or part of the work failed.
.TP
.B 2
Usage.
.TP
.B 3
A TAP is in use, and nothing was changed there.
.SH EXAMPLES
.nf
nlraw selftest
nlraw scan \\-n pod1 \\-\\-who
nlraw cleanup \\-n pod1 \\-\\-dry\\-run
nlraw deploy nlraw\\-watch.service >/etc/systemd/system/nlraw\\-watch.service
.fi
.SH SEE ALSO
.BR ip\\-netns (8),
.BR tc (8),
.BR tc\\-mirred (8)
"""


def roff(text):
    """Escape a text for troff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(
        "\\&" + line if line[:1] in (".", "'") else line for line in escaped.split("\n")
    )


def page():
    """Return the manual page."""
    parts = [HEAD % nlraw.__version__]
    for name, command in commands.COMMANDS.items():
        operand = " [\\fI%s\\fP]" % roff(command.operand) if command.operand else ""
        parts.append(".SS nlraw %s [\\fIOPTION\\fP...]%s\n" % (roff(name), operand))
        parts.append(roff(_sentence(command.summary)) + "\n.PP\n" + roff(command.text) + "\n")
        for option in command.options:
            names = ["-" + option.letter] if option.letter else []
            names.append("--" + option.name)
            line = ", ".join("\\fB%s\\fP" % roff(each) for each in names)
            value = " \\fI%s\\fP" % roff(option.value) if option.value else ""
            parts.append(".TP\n%s%s\n%s\n" % (line, value, roff(_sentence(option.help))))
    parts.append(".SH FILES\n")
    for name, place, about in deployment.FILES:
        words = "printed by \\fBnlraw deploy\\fP; place: %s" % roff(place)
        parts.append(".TP\n.I %s\n%s; %s.\n" % (roff(name), _sentence(roff(about))[:-1], words))
    return "".join(parts) + TAIL


def _sentence(text):
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


# ---------------------------------------------------------------- bash's completion

SCRIPT = """\
# SPDX-License-Identifier: Apache-2.0
# bash completion of nlraw

_nlraw() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words='%(commands)s --help --version'
    else
        case $before in
            %(netns)s)
                mapfile -t COMPREPLY < <(cd /run/netns 2>/dev/null && compgen -f -- "$word")
                if [[ current == "$word"* ]]; then COMPREPLY+=(current); fi
                return
                ;;
            %(directories)s)
                mapfile -t COMPREPLY < <(compgen -d -- "$word")
                return
                ;;
            %(files)s)
                mapfile -t COMPREPLY < <(compgen -f -- "$word")
                return
                ;;
            %(others)s) return 0 ;;
        esac
        case ${COMP_WORDS[1]} in
%(options)s
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _nlraw nlraw
"""


def completion():
    """Return the completion script."""
    every = {each.name: each for command in commands.COMMANDS.values() for each in command.options}
    values = {}
    for option in every.values():
        values.setdefault(option.value, []).extend(_flags(option))
    lines = []
    for name, command in commands.COMMANDS.items():
        words = [flag for option in command.options for flag in _flags(option) if flag[1] == "-"]
        if command.operand:
            words = [each for each, _, _ in deployment.FILES] + words
        lines.append("            %s) words='%s' ;;" % (name, " ".join(words)))
    known = {"NETNS": "netns", "DIR": "directories", "FILE": "files"}
    others = [
        flag for value, flags in values.items() if value not in known for flag in flags if value
    ]
    patterns = {key: " | ".join(values[value]) for value, key in known.items()}
    return SCRIPT % dict(
        patterns,
        commands=" ".join(commands.COMMANDS),
        others=" | ".join(others),
        options="\n".join(lines),
    )


def _flags(option):
    return (["-" + option.letter] if option.letter else []) + ["--" + option.name]


def made():
    """Return the files, by their paths in nlraw/data."""
    return {PAGE: page(), COMPLETION: completion()}


def main():
    for name, content in made().items():
        path = os.path.join(TREE, "nlraw", "data", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(content)
        print(path)


if __name__ == "__main__":
    main()
