"""What differs between the releases of the server, as data: versions, their sockets, and how to find out which one
runs.

Standard library only. Nothing here knows trio or opens a connection, except the probe of :mod:`.detect`.
"""
