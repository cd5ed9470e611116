"""Time and chance: what an engine does, without HTTP."""
