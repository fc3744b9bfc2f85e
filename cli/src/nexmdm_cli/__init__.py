"""`nexmdm`, the operator's command, and the console. Speaks to the API as anybody could."""
