"""`python -m tvm.driver.tvmc`: the same program as `tvmc`, slower to start, since `tvm` is imported first."""

import sys

from tvm_secret.cli import main

if __name__ == "__main__":
    sys.exit(main())
