"""How twistd finds llmdsim. It names the room only: imported here, it would install a reactor before ``-r`` is read."""

from twisted.application.service import ServiceMaker

llmdsim = ServiceMaker("llmdsim", "llmdsim.tap", "A vLLM server simulator.", "llmdsim")
