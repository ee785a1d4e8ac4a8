"""Turns other tools' model catalogues into ours: `baton import`. Nothing here opens a connection or copies a secret."""
