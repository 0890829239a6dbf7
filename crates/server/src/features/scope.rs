//! Which machines a caller may see. Device groups become SQL here and nowhere else.

use crate::edge::Call;
use crate::odata::Query;
use serde_json::Value as Json;
use vigie_contract::administration::UNASSIGNED;
use vigie_identity::Caller;

/// Names of the device groups that the caller may see; `None` for all machines of the tenant, which
/// is what an application sees.
fn device_groups(caller: &Caller) -> Option<&[String]> {
    caller.device_groups.as_deref()
}

/// Restricts a list to rows of visible machines; `machine` is the SQL of the row's machine id.
pub fn restrict(query: &mut Query, call: &Call, machine: &str) {
    let Some(groups) = device_groups(&call.caller) else { return };
    let names: Vec<String> =
        groups.iter().map(|group| format!("${}", query.value(group.as_str().into()))).collect();
    query.require(match names.is_empty() {
        true => "1 = 0".to_owned(),
        false => format!(
            "EXISTS (SELECT 1 FROM machines g WHERE g.id = {machine} AND \
             COALESCE(g.group_name, '{UNASSIGNED}') IN ({}))",
            names.join(", ")
        ),
    });
}

/// Whether the caller may see a machine, told by the machine's entity.
pub fn is_visible(call: &Call, machine: &Json) -> bool {
    let Some(groups) = device_groups(&call.caller) else { return true };
    let name = machine["rbacGroupName"].as_str().unwrap_or(UNASSIGNED);
    groups.iter().any(|group| group == name)
}
