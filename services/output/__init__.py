"""Delivers the one result of every request: to `results`, and to whoever waits for it over HTTP."""
