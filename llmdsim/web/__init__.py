"""The HTTP door: thin, and the only place that knows requests and responses."""
