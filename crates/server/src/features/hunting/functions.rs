//! Saved functions of a tenant: the administration of them, and what queries call.

use crate::edge::ApiError;
use crate::state::State;
use uuid::Uuid;
use vigie_contract::function::SavedFunction;
use vigie_database::{DatabaseError, Migrations, Row};
use vigie_hunting::{QueryError, SavedFunctions};

pub const FUNCTIONS: Migrations = Migrations {
    feature: "functions",
    steps: &["
CREATE TABLE hunting_functions (
    tenant TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, name));
"],
};

/// Most functions of a tenant, and the longest in bytes: each query reads all of them.
const MOST: usize = 1_000;
const LONGEST: usize = 100_000;

fn function(row: &Row) -> Result<SavedFunction, ApiError> {
    serde_json::from_str(row.text(0)?).map_err(ApiError::internal)
}

/// All functions by name.
pub async fn list(state: &State, tenant: Uuid) -> Result<Vec<SavedFunction>, ApiError> {
    let sql = "SELECT body FROM hunting_functions WHERE tenant = $1 ORDER BY name";
    let rows = state.database.read(sql, &[tenant.to_string().into()]).await?;
    rows.iter().map(function).collect()
}

/// What a tenant's queries may call; `None` where nothing is saved.
pub async fn saved(state: &State, tenant: Uuid) -> Result<Option<SavedFunctions>, ApiError> {
    let all = list(state, tenant).await?;
    Ok((!all.is_empty()).then(|| of(&all)))
}

fn of<'f>(functions: impl IntoIterator<Item = &'f SavedFunction>) -> SavedFunctions {
    let parts = |f: &'f SavedFunction| (f.name.as_str(), f.parameters.as_str(), f.query.as_str());
    SavedFunctions::new(functions.into_iter().map(parts))
}

/// One function.
pub async fn get(state: &State, tenant: Uuid, name: &str) -> Result<SavedFunction, ApiError> {
    let sql = "SELECT body FROM hunting_functions WHERE tenant = $1 AND name = $2";
    let values = [tenant.to_string().into(), name.into()];
    let rows = state.database.read(sql, &values).await?;
    function(rows.first().ok_or_else(|| ApiError::not_found("Function", name))?)
}

/// Saves a new function.
pub async fn create(
    state: &State,
    tenant: Uuid,
    new: SavedFunction,
) -> Result<SavedFunction, ApiError> {
    let others = list(state, tenant).await?;
    if others.iter().any(|other| other.name == new.name) {
        return Err(taken(&new.name));
    }
    if others.len() >= MOST {
        let message = format!("A tenant keeps at most {MOST} functions");
        return Err(ApiError::bad_request(message));
    }
    check(&others, &new)?;
    let insert = "INSERT INTO hunting_functions (tenant, name, body) VALUES ($1, $2, $3)";
    let body = serde_json::to_string(&new).map_err(ApiError::internal)?;
    let values = [tenant.to_string().into(), new.name.as_str().into(), body.into()];
    state.database.execute(insert, &values).await.map_err(|error| match error {
        DatabaseError::Constraint(_) => taken(&new.name),
        other => other.into(),
    })?;
    Ok(new)
}

/// Replaces a function, whose name may change with it.
pub async fn replace(
    state: &State,
    tenant: Uuid,
    name: &str,
    new: SavedFunction,
) -> Result<SavedFunction, ApiError> {
    get(state, tenant, name).await?;
    let mut others = list(state, tenant).await?;
    others.retain(|other| other.name != name);
    if others.iter().any(|other| other.name == new.name) {
        return Err(taken(&new.name));
    }
    check(&others, &new)?;
    let update =
        "UPDATE hunting_functions SET name = $1, body = $2 WHERE tenant = $3 AND name = $4";
    let body = serde_json::to_string(&new).map_err(ApiError::internal)?;
    let values = [new.name.as_str().into(), body.into(), tenant.to_string().into(), name.into()];
    state.database.execute(update, &values).await?;
    Ok(new)
}

/// Removes a function. What calls it fails from then on, and says why.
pub async fn delete(state: &State, tenant: Uuid, name: &str) -> Result<(), ApiError> {
    get(state, tenant, name).await?;
    let delete = "DELETE FROM hunting_functions WHERE tenant = $1 AND name = $2";
    state.database.execute(delete, &[tenant.to_string().into(), name.into()]).await?;
    Ok(())
}

fn check(others: &[SavedFunction], new: &SavedFunction) -> Result<(), ApiError> {
    if new.query.len() + new.parameters.len() + new.description.len() > LONGEST {
        return Err(ApiError::body(format!("A function has at most {LONGEST} bytes")));
    }
    let checked = of(others).check(&new.name, &new.parameters, &new.query);
    checked.map_err(|error| match error {
        QueryError::Rejected(diagnostics) => {
            let texts = diagnostics.iter().take(5).map(|d| d.display(&new.query));
            ApiError::body(texts.collect::<Vec<_>>().join("\n"))
        }
        other => ApiError::internal(other),
    })
}

fn taken(name: &str) -> ApiError {
    ApiError::new(409, "Conflict", format!("There is a function named '{name}' already"))
}
