//! The identity's tables.

use vigie_database::Migrations;

pub const IDENTITY: Migrations = Migrations {
    feature: "identity",
    steps: &["
CREATE TABLE tenants (
    id TEXT PRIMARY KEY, display_name TEXT NOT NULL, plan TEXT NOT NULL, created BIGINT NOT NULL,
    lab_machines BIGINT);
CREATE TABLE domains (
    name TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    place BIGINT NOT NULL);
CREATE TABLE applications (
    app_id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    object_id TEXT NOT NULL, display_name TEXT NOT NULL, created BIGINT NOT NULL);
CREATE TABLE grants (
    app_id TEXT NOT NULL REFERENCES applications (app_id) ON DELETE CASCADE,
    resource TEXT NOT NULL, role TEXT NOT NULL, PRIMARY KEY (app_id, resource, role));
CREATE TABLE secrets (
    key_id TEXT PRIMARY KEY, app_id TEXT NOT NULL REFERENCES applications (app_id) ON DELETE CASCADE,
    display_name TEXT, hint TEXT NOT NULL, hash BYTEA NOT NULL, created BIGINT NOT NULL,
    expires BIGINT NOT NULL);
CREATE TABLE users (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_principal_name TEXT NOT NULL UNIQUE, display_name TEXT NOT NULL, password TEXT NOT NULL,
    enabled BIGINT NOT NULL, roles TEXT NOT NULL, created BIGINT NOT NULL);
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY, private_key BYTEA NOT NULL, created BIGINT NOT NULL);
CREATE TABLE audit (
    id TEXT PRIMARY KEY, at BIGINT NOT NULL, tenant TEXT, actor TEXT NOT NULL, action TEXT NOT NULL,
    target TEXT NOT NULL, outcome TEXT NOT NULL);
CREATE INDEX audit_at ON audit (at);
"],
};
