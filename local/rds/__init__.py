"""RDS for tests and rehearsals: a front end with TLS and IAM tokens, and a PostgreSQL with RDS's login rules."""
