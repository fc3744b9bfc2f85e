"""The console: a local web page that talks to the API with the operator's own credentials.

No admin page is on the internet: it is served on this machine's loopback to whoever holds the token of this start.
"""

from nexmdm_cli.console.server import running, serve

__all__ = ["running", "serve"]
