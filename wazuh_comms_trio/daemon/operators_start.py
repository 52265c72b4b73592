"""The first step of the operators' process: it stands back behind the workers before it imports anything."""

from __future__ import annotations

import os
import sys


def main() -> int:
    os.nice(5)
    from wazuh_comms_trio.daemon.operators.process import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
