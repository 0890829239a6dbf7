//! The live response library: scripts, tools and YARA rules of a tenant.

mod form;

use super::time_text;
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::{IntoResponse as _, Response};
use form::Form;
use http::StatusCode;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use vigie_contract::sensor::{FileReference, is_file_name};
use vigie_database::{DatabaseError, Migrations, Row};

pub const LIBRARY: Migrations = Migrations {
    feature: "library",
    steps: &["
CREATE TABLE library_files (
    tenant TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL, size BIGINT NOT NULL,
    content BYTEA NOT NULL, description TEXT, has_parameters BIGINT NOT NULL,
    parameters_description TEXT, created_by TEXT NOT NULL, created BIGINT NOT NULL,
    updated BIGINT NOT NULL, PRIMARY KEY (tenant, name));
CREATE INDEX library_files_hash ON library_files (tenant, sha256);
"],
};

/// Largest file (documentation of the upload).
pub const LARGEST_FILE: usize = 20 << 20;
/// A request has a little around its file.
pub const LARGEST_BODY: usize = LARGEST_FILE + (64 << 10);

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

const COLLECTION: Collection = Collection {
    name: "LibraryFiles",
    from: "library_files t",
    columns: "t.name, t.sha256, t.description, t.created, t.updated, t.created_by, \
              t.has_parameters, t.parameters_description",
    properties: &[
        property("fileName", "t.name", Type::Text),
        property("sha256", "t.sha256", Type::Text),
        property("createdBy", "t.created_by", Type::Text),
        property("creationTime", "t.created", Type::Time),
        property("lastUpdatedTime", "t.updated", Type::Time),
    ],
    shown: &["description", "hasParameters", "parametersDescription"],
    expandable: &[],
    key: "t.name",
    never_null: &[],
    counted: None,
    max_page: 10_000,
};

fn entity(row: &Row) -> Result<Json, ApiError> {
    let mut entity = json!({
        "fileName": row.text(0)?,
        "sha256": row.text(1)?,
        "description": row.optional_text(2)?,
        "creationTime": time_text(row.integer(3)?),
        "lastUpdatedTime": time_text(row.integer(4)?),
        "createdBy": row.text(5)?,
        "hasParameters": row.flag(6)?,
    });
    if row.flag(6)? {
        entity["parametersDescription"] = row.optional_text(7)?.into();
    }
    Ok(entity)
}

/// `GET /api/libraryfiles`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    let query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
    Ok(COLLECTION.respond(&call, &query, &page, entities))
}

/// `POST /api/libraryfiles`, a form with the file and what is said about it.
pub async fn upload(state: &State, call: Call) -> Result<Response, ApiError> {
    let form = Form::read(&call.headers, call.body.clone()).await?;
    if !is_file_name(&form.name) {
        return Err(ApiError::body("File: a file with a name is expected, without any folder"));
    }
    if form.content.len() > LARGEST_FILE {
        return Err(ApiError::body(format!("File: larger than {LARGEST_FILE} bytes")));
    }
    let tenant = call.caller.tenant.to_string();
    let sha256: String =
        Sha256::digest(&form.content).iter().map(|byte| format!("{byte:02x}")).collect();
    let created_by = call.actor();
    let now = state.now();
    let mut insert =
        "INSERT INTO library_files (tenant, name, sha256, size, content, description, \
        has_parameters, parameters_description, created_by, created, updated) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)"
            .to_owned();
    if form.override_if_exists {
        insert.push_str(
            " ON CONFLICT (tenant, name) DO UPDATE SET sha256 = excluded.sha256, \
             size = excluded.size, content = excluded.content, \
             description = excluded.description, has_parameters = excluded.has_parameters, \
             parameters_description = excluded.parameters_description, \
             updated = excluded.updated",
        );
    }
    let has_parameters = form.has_parameters || !form.parameters_description.is_empty();
    let values = [
        tenant.as_str().into(),
        form.name.as_str().into(),
        sha256.into(),
        (form.content.len() as i64).into(),
        form.content.to_vec().into(),
        form.description.clone().into(),
        has_parameters.into(),
        Some(form.parameters_description.clone()).into(),
        created_by.into(),
        now.into(),
    ];
    match state.database.execute(&insert, &values).await {
        Err(DatabaseError::Constraint(_)) => {
            let name = &form.name;
            let message = format!("A file named {name} exists and OverrideIfExists is not true");
            return Err(ApiError::bad_request(message));
        }
        outcome => outcome?,
    };
    let select = format!(
        "SELECT {} FROM library_files t WHERE t.tenant = $1 AND t.name = $2",
        COLLECTION.columns
    );
    let rows = state.database.read(&select, &[tenant.into(), form.name.as_str().into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Library file", &form.name))?;
    Ok(json(200, &COLLECTION.entity(&call, entity(row)?)))
}

/// `DELETE /api/libraryfiles/{fileName}`
pub async fn delete(state: &State, call: Call) -> Result<Response, ApiError> {
    let name = call.parameters[0].as_str();
    let delete = "DELETE FROM library_files WHERE tenant = $1 AND name = $2";
    let values = [call.caller.tenant.to_string().into(), name.into()];
    match state.database.execute(delete, &values).await? {
        0 => Err(ApiError::not_found("Library file", name)),
        _ => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

fn reference(row: &Row) -> Result<FileReference, ApiError> {
    let (name, sha256) = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
    Ok(FileReference { name, sha256, size: row.integer(2)?.unsigned_abs() })
}

/// A file by its name.
pub async fn find(
    state: &State,
    tenant: &str,
    name: &str,
) -> Result<Option<FileReference>, ApiError> {
    let select = "SELECT name, sha256, size FROM library_files WHERE tenant = $1 AND name = $2";
    let rows = state.database.read(select, &[tenant.into(), name.into()]).await?;
    rows.first().map(reference).transpose()
}

/// The tenant's YARA rules: files whose names end in `.yar` or `.yara`.
pub async fn rules(state: &State, tenant: &str) -> Result<Vec<FileReference>, ApiError> {
    let select = "SELECT name, sha256, size FROM library_files WHERE tenant = $1 AND \
                  (LOWER(name) LIKE '%.yar' OR LOWER(name) LIKE '%.yara') ORDER BY name";
    let rows = state.database.read(select, &[tenant.into()]).await?;
    rows.iter().map(reference).collect()
}

/// The bytes of a file as they were when an order named it.
pub async fn content(state: &State, tenant: &str, sha256: &str) -> Result<Vec<u8>, ApiError> {
    let select = "SELECT content FROM library_files WHERE tenant = $1 AND sha256 = $2";
    let rows = state.database.read(select, &[tenant.into(), sha256.into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Library file", sha256))?;
    Ok(row.bytes(0)?.to_vec())
}
