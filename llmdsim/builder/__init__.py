"""Makes datasets of conversations, for ``--dataset-path``: the command ``llmdsim-dataset``."""
