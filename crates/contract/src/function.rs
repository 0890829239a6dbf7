//! Saved functions of a tenant, under the administration API: hunting queries that other queries call
//! by name.
//!
//! | request | body → answer |
//! |---|---|
//! | `GET`, `POST …/{tenant}/functions` | → `List<`[`SavedFunction`]`>`, `SavedFunction` → `SavedFunction` |
//! | `GET`, `PUT`, `DELETE …/functions/{name}` | → `SavedFunction`, `SavedFunction` → `SavedFunction`, → 204 |

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedFunction {
    /// No two functions of a tenant have the same, and no table or built-in function has it.
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// As KQL writes them: `device:string, ports:dynamic=dynamic([22])`, `T:(DeviceId:string)`.
    #[serde(default)]
    pub parameters: String,
    pub query: String,
}
