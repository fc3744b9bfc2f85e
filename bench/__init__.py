"""`make bench`: what production size costs on this machine, on an embedded server of its own."""
