"""`python -m nexmdm.schema`: compare the database of DATABASE_URL with the models."""

from nexmdm.schema.check import main

main()
