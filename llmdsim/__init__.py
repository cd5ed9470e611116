"""llmdsim: a vLLM server simulator, as a Twisted daemon."""

__version__ = "0.1.0"
