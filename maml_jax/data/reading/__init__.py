"""From a file to the table that stands in it, before its columns, times and numbers are read."""

__all__ = [
    "cells",
    "contents",
    "envelopes",
    "headers",
    "json_tables",
    "kinds",
    "layouts",
    "raw",
    "spaces",
    "tables",
    "text",
]
