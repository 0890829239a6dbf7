//! The identity's tables.

use vigie_database::Migrations;

pub const IDENTITY: Migrations =
    Migrations { feature: "identity", steps: &[FIRST, CONTEXTS, MANY] };

const FIRST: &str = "
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
";

/// User and partner context: service principals in every tenant that consented, users' states,
/// groups and roles, and what sign-in has issued.
const CONTEXTS: &str = "
ALTER TABLE tenants ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE applications ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE audit ADD COLUMN address TEXT;
CREATE INDEX audit_tenant ON audit (tenant, at);
CREATE TABLE service_principals (
    object_id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES applications (app_id) ON DELETE CASCADE,
    enabled BIGINT NOT NULL, assignment_required BIGINT NOT NULL, created BIGINT NOT NULL,
    UNIQUE (tenant, app_id));
INSERT INTO service_principals (object_id, tenant, app_id, enabled, assignment_required, created)
    SELECT object_id, tenant, app_id, 1, 0, created FROM applications;
CREATE TABLE role_grants (
    tenant TEXT NOT NULL, app_id TEXT NOT NULL, resource TEXT NOT NULL, role TEXT NOT NULL,
    PRIMARY KEY (tenant, app_id, resource, role),
    FOREIGN KEY (tenant, app_id) REFERENCES service_principals (tenant, app_id) ON DELETE CASCADE);
INSERT INTO role_grants (tenant, app_id, resource, role)
    SELECT a.tenant, g.app_id, g.resource, g.role FROM grants g JOIN applications a ON a.app_id = g.app_id;
DROP TABLE grants;
CREATE TABLE scope_grants (
    tenant TEXT NOT NULL, app_id TEXT NOT NULL, resource TEXT NOT NULL, user_id TEXT NOT NULL,
    scope TEXT NOT NULL, PRIMARY KEY (tenant, app_id, resource, user_id, scope),
    FOREIGN KEY (tenant, app_id) REFERENCES service_principals (tenant, app_id) ON DELETE CASCADE);
CREATE TABLE assignments (
    tenant TEXT NOT NULL, app_id TEXT NOT NULL, user_id TEXT NOT NULL,
    PRIMARY KEY (tenant, app_id, user_id),
    FOREIGN KEY (tenant, app_id) REFERENCES service_principals (tenant, app_id) ON DELETE CASCADE);
CREATE TABLE certificates (
    key_id TEXT PRIMARY KEY, app_id TEXT NOT NULL REFERENCES applications (app_id) ON DELETE CASCADE,
    display_name TEXT, thumbprint TEXT NOT NULL, thumbprint_sha256 TEXT NOT NULL,
    public_key BYTEA NOT NULL, starts BIGINT NOT NULL, expires BIGINT NOT NULL,
    created BIGINT NOT NULL);
CREATE TABLE federated_credentials (
    id TEXT PRIMARY KEY, app_id TEXT NOT NULL REFERENCES applications (app_id) ON DELETE CASCADE,
    name TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, audience TEXT NOT NULL,
    keys TEXT, created BIGINT NOT NULL, UNIQUE (app_id, name));
ALTER TABLE users ADD COLUMN given_name TEXT;
ALTER TABLE users ADD COLUMN surname TEXT;
ALTER TABLE users ADD COLUMN password_changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN password_expired BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN blocked BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN totp BYTEA;
ALTER TABLE users ADD COLUMN totp_step BIGINT NOT NULL DEFAULT 0;
CREATE TABLE groups (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    display_name TEXT NOT NULL, created BIGINT NOT NULL, UNIQUE (tenant, display_name));
CREATE TABLE group_members (
    group_id TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, PRIMARY KEY (group_id, user_id));
CREATE TABLE rbac_roles (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    display_name TEXT NOT NULL, permissions TEXT NOT NULL, groups TEXT NOT NULL,
    UNIQUE (tenant, display_name));
CREATE TABLE device_groups (
    tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE, id BIGINT NOT NULL,
    name TEXT NOT NULL, place BIGINT NOT NULL, rules TEXT NOT NULL, groups TEXT NOT NULL,
    PRIMARY KEY (tenant, id), UNIQUE (tenant, name));
CREATE TABLE codes (
    hash BYTEA PRIMARY KEY, family TEXT NOT NULL, tenant TEXT NOT NULL, app_id TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, content TEXT NOT NULL,
    expires BIGINT NOT NULL, spent BIGINT NOT NULL);
CREATE INDEX codes_expires ON codes (expires);
CREATE TABLE refresh_tokens (
    hash BYTEA PRIMARY KEY, family TEXT NOT NULL,
    tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    app_id TEXT NOT NULL REFERENCES applications (app_id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, content TEXT NOT NULL,
    created BIGINT NOT NULL, expires BIGINT NOT NULL, spent BIGINT, revoked BIGINT NOT NULL);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires);
CREATE TABLE device_codes (
    hash BYTEA PRIMARY KEY, user_code BYTEA NOT NULL UNIQUE, tenant TEXT NOT NULL,
    app_id TEXT NOT NULL REFERENCES applications (app_id) ON DELETE CASCADE, content TEXT NOT NULL,
    address TEXT NOT NULL, expires BIGINT NOT NULL, wait BIGINT NOT NULL, polled BIGINT NOT NULL,
    state TEXT NOT NULL, user_tenant TEXT, user_id TEXT, amr TEXT, authenticated BIGINT);
CREATE INDEX device_codes_expires ON device_codes (expires);
CREATE TABLE sessions (
    hash BYTEA PRIMARY KEY, tenant TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, amr TEXT NOT NULL,
    authenticated BIGINT NOT NULL, expires BIGINT NOT NULL);
CREATE INDEX sessions_expires ON sessions (expires);
CREATE TABLE assertion_ids (
    id BYTEA PRIMARY KEY, expires BIGINT NOT NULL);
CREATE TABLE locks (
    subject BYTEA PRIMARY KEY, failures BIGINT NOT NULL, until BIGINT NOT NULL,
    last_failure BIGINT NOT NULL);
CREATE TABLE familiar_addresses (
    subject BYTEA PRIMARY KEY, seen BIGINT NOT NULL);
";

/// For many tenants and applications: what is looked for by other columns than its key, and a number
/// that grows with every change, by which nodes notice that what they remember is old.
const MANY: &str = "
CREATE INDEX domains_tenant ON domains (tenant);
CREATE INDEX applications_tenant ON applications (tenant);
CREATE INDEX secrets_app ON secrets (app_id);
CREATE INDEX certificates_app ON certificates (app_id);
CREATE INDEX service_principals_app ON service_principals (app_id);
CREATE INDEX users_tenant ON users (tenant);
CREATE INDEX group_members_user ON group_members (user_id);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_app ON refresh_tokens (app_id);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE TABLE directory_version (id BIGINT PRIMARY KEY, version BIGINT NOT NULL);
INSERT INTO directory_version (id, version) VALUES (1, 0);
";
