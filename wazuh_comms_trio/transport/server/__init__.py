"""One server of one release: typed calls to its small sockets, and orders that each release carries out differently.

What is sent is decided in pure code; :mod:`.plain` and :mod:`.aio` carry it out, for plain and for trio programs.
"""
