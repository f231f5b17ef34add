"""`python -m diffuse`, for when the console script is not on the path."""

import sys

from diffuse.cli import main

sys.exit(main())
