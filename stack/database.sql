-- The role and the database of the tracking server. The image's first start runs this by psql as the superuser; the
-- password is in a file, and in no command line and no log.
\set ON_ERROR_STOP on
\set password `cat "$DATABASE_PASSWORD_FILE"`
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
CREATE ROLE mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT, TEMPORARY ON DATABASE mlflow FROM PUBLIC;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
