"""
llmdsim for ``twistd -y etc/llmdsim.tac``, configured by the environment.

LLMDSIM_CONFIG is the path of a YAML file; LLMDSIM_ARGS holds command-line flags, quoted as in a shell.
Flags win over the file; SIM_MODEL and PYTHONHASHSEED count as always.
"""

import os
import shlex

from twisted.application.service import Application

from llmdsim.tap import Options, makeService

config = os.environ.get("LLMDSIM_CONFIG")
options = Options()
options.parseOptions([*(["--config", config] if config else []), *shlex.split(os.environ.get("LLMDSIM_ARGS", ""))])

application = Application("llmdsim")
makeService(options).setServiceParent(application)
