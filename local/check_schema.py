"""`make check-schema`: `python -m nexmdm.schema` on DATABASE_URL, or on this machine's server when it is unset."""

import os

from nexmdm import schema

from local import postgres

if __name__ == "__main__":
    os.environ["DATABASE_URL"] = postgres.url()
    schema.main()
