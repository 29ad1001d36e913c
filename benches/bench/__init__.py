"""Measurements of trawl on this machine; `benches/run` is the entry.

`command` reads what was typed. `machine` gives a bench its cores, memory, packages and binary; `appliance` a running `trawl serve`;
`frames` something to capture; `sender` somebody who sends it; `watchdog` an end in every case; `results` a table and its place.
Each other file is one bench: OPTIONS with their defaults, and `run`. Python's standard library only.
"""


class Failed(Exception):
    """Something that a bench cannot go on after; its text says what."""
