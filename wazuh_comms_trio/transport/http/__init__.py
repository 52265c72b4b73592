"""HTTP over a server's Unix sockets: what can be asked, as data, and two clients, for plain programs and for Trio.

Only :mod:`.pool` knows trio and the project's HTTP client (the extra ``http``); everything else is the standard
library.
"""
