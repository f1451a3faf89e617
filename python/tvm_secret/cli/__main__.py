"""`python -m tvm_secret.cli`: the program `tvmc`, for where the command is not on the path."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
