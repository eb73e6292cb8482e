"""`python -m actionformer`."""

import sys

from actionformer.cli import main

sys.exit(main())
