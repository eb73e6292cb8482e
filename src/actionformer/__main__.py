"""`python -m actionformer`."""

import sys

from actionformer.commands.main import main

sys.exit(main())
