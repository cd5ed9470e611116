"""``python -m llmdsim.config``: the reference of all flags, as reStructuredText."""

from __future__ import annotations

import sys

from llmdsim.config import FLAGS
from llmdsim.config.reference import manual

sys.stdout.write(manual(FLAGS))
