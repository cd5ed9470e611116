"""
Values for JSON Schemas and texts for regular expressions: what tool calls and structured outputs hold.

``values`` makes values, ``regexes`` texts; the other rooms are theirs.
"""
