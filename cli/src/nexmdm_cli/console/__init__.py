"""The console: a local web page that calls the API with the operator's own credentials.

No admin page is exposed to the internet: the console listens on the loopback interface, and requires a token that is
created at each start.
"""

from nexmdm_cli.console.server import running, serve

__all__ = ["running", "serve"]
