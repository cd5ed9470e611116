"""The shapes of the APIs: body to Request, Plan to bytes; pure functions."""
