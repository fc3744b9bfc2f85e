"""The operators' CLI `nexmdm` and the console. Both use only the public API."""
