# SPDX-License-Identifier: Apache-2.0
import os
import sys

# `python -m` searches the current directory for modules first, whatever it holds. The code below
# ends that: the modules of this package are found through the package. `python -I` and `-P` never
# search the current directory.
try:
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
except OSError:  # the current directory is gone
    pass

from .cli import program

program()
