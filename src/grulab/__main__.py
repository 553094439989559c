"""``python -m grulab``: the command line, for a process that has Python's path and no other."""

import sys

from grulab.cli import main

sys.exit(main())
