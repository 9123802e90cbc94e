"""The smoke run, which is for a GPU, with the kernels in the emulator.

    python -m tests.ptx -k PATTERN

Every structure takes half an hour of a core, most of it Triton's.  With another Triton installed it is that one's PTX.
"""

import sys

from tests import smoke
from tests.ptx.kernels import emulated

with emulated():
    sys.exit(smoke.main(["--repeats", "0", *sys.argv[1:]], device="cpu"))
