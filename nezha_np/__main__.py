"""``python -m nezha_np`` is ``nezha-np``: for where the folder of its script is not among those of the shell."""

import sys

from nezha_np_command import main

if __name__ == "__main__":
    sys.exit(main())
