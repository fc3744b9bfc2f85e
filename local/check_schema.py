"""`make check-schema`: `python -m nexmdm.schema` on DATABASE_URL, or on this machine's server when it is unset."""

import os

from nexmdm.schema import check

from local.postgres import embedded

if __name__ == "__main__":
    os.environ["DATABASE_URL"] = embedded.url()
    check.main()
