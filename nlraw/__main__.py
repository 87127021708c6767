# SPDX-License-Identifier: Apache-2.0
import os
import sys

# `python -m` looks for modules in the current directory first, whatever lies there. What is imported from here on is not:
# ours are found through the package. `python -I` and `-P` do not look there in the first place.
try:
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
except OSError:  # the current directory is gone
    pass

from .cli import program

program()
