"""`python -m sharp_maml` is the command `sharp-maml`, for what starts programs by module, as `torchrun` does."""

import sys

from sharp_maml_command import main

if __name__ == "__main__":
    sys.exit(main())
