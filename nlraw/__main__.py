# SPDX-License-Identifier: Apache-2.0
import os
import sys

# `python -m` searches the current directory for modules first, whatever it holds. From here on it
# does not: our own modules are found through the package. `python -I` and `-P` never search it.
try:
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
except OSError:  # the current directory is gone
    pass

from .cli import program

program()
