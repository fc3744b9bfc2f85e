"""RDS for tests and rehearsals: its front door (TLS and IAM tokens), and a PostgreSQL with its rules about logins."""
