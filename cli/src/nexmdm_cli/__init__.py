"""The operator's command, `nexmdm`, and the console. Speaks to the API as anybody could; imports nothing of the server."""
