//! Paths of the catalogue: compared without regard to case, with or without a version, with doubled
//! or trailing slashes.

use super::ApiError;
use http::Method;
use percent_encoding::percent_decode_str;
use vigie_contract::operations::{OPERATIONS, Operation};

#[derive(Debug)]
pub struct Found {
    pub operation: &'static Operation,
    pub parameters: Vec<String>,
    /// The path ended in `/$count`, which no operation of its own stands for.
    pub count: bool,
}

/// The operation of a path under `/api` or `/api/v1.0`.
pub fn find(method: &Method, path: &str) -> Result<Found, ApiError> {
    let mut segments = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        // PostgreSQL keeps no text with U+0000.
        let decoded = percent_decode_str(segment).decode_utf8().ok();
        let decoded = decoded.filter(|segment| !segment.contains('\0'));
        let wrong = || ApiError::bad_request("The path is not valid UTF-8 without U+0000.");
        segments.push(decoded.ok_or_else(wrong)?);
    }
    let mut segments: Vec<&str> = segments.iter().map(|segment| segment.as_ref()).collect();
    if segments.get(1).is_some_and(|version| version.eq_ignore_ascii_case("v1.0")) {
        segments.remove(1);
    }
    let mut matching = matching(&segments);
    let mut count = false;
    if matching.is_empty() && segments.last().is_some_and(|s| s.eq_ignore_ascii_case("$count")) {
        segments.pop();
        matching = self::matching(&segments);
        // Only lists are counted.
        matching.retain(|(operation, _)| operation.is_list());
        count = true;
    }
    let right = |operation: &Operation| operation.method.eq_ignore_ascii_case(method.as_str());
    if let Some(at) = matching.iter().position(|(operation, _)| right(operation)) {
        let (operation, parameters) = matching.swap_remove(at);
        return Ok(Found { operation, parameters, count });
    }
    if !matching.is_empty() {
        let message = format!("The requested resource does not support http method '{method}'.");
        let allow: Vec<&str> = matching.iter().map(|(o, _)| o.method.as_str()).collect();
        return Err(ApiError::method_not_allowed(message, allow.join(", ")));
    }
    let path: String = path.chars().take(200).collect();
    let message = format!("No HTTP resource was found that matches the request path '{path}'.");
    Err(ApiError::new(404, "NotFound", message))
}

/// Operations of a path. `/machines/export` is no machine of that name: those with the fewest
/// parameters win.
fn matching(segments: &[&str]) -> Vec<(&'static Operation, Vec<String>)> {
    let mut all: Vec<(&Operation, Vec<String>)> = (OPERATIONS.iter())
        .filter_map(|operation| Some((operation, matched(&operation.path, segments)?)))
        .collect();
    let fewest = all.iter().map(|(_, parameters)| parameters.len()).min();
    all.retain(|(_, parameters)| Some(parameters.len()) == fewest);
    all
}

fn matched(template: &str, segments: &[&str]) -> Option<Vec<String>> {
    let template = template.split('?').next().unwrap_or_default();
    let wanted: Vec<&str> = template.trim_matches('/').split('/').collect();
    if wanted.len() != segments.len() {
        return None;
    }
    let mut parameters = Vec::new();
    for (wanted, segment) in wanted.iter().zip(segments) {
        if wanted.starts_with('{') && wanted.ends_with('}') && wanted.matches('{').count() == 1 {
            // Functions such as `findbyip(…)` are no ids; nor is a count.
            if segment.contains('(') || segment.eq_ignore_ascii_case("$count") {
                return None;
            }
            parameters.push((*segment).to_owned());
        } else if wanted.contains('(') {
            parameters.extend(arguments(wanted, segment)?);
        } else if !wanted.eq_ignore_ascii_case(segment) {
            return None;
        }
    }
    Some(parameters)
}

/// Arguments of a function in the path, by name in any order, or in the documented order.
fn arguments(wanted: &str, segment: &str) -> Option<Vec<String>> {
    let (name, wanted) = wanted.split_once('(')?;
    let (found, given) = segment.split_once('(')?;
    if !found.eq_ignore_ascii_case(name) {
        return None;
    }
    let wanted: Vec<&str> = wanted.trim_end_matches(')').split(',').collect();
    let given: Vec<&str> = given.strip_suffix(')')?.split(',').collect();
    if given.len() != wanted.len() {
        return None;
    }
    let value = |text: &str| text.trim().trim_matches('\'').to_owned();
    let by_name = |wanted: &&str| {
        let name = wanted.split_once('=')?.0.trim();
        let mut pairs = given.iter().filter_map(|given| given.split_once('='));
        pairs.find(|(n, _)| n.trim().eq_ignore_ascii_case(name)).map(|(_, text)| value(text))
    };
    if given.iter().all(|given| given.contains('=')) {
        return wanted.iter().map(by_name).collect();
    }
    Some(given.iter().map(|given| value(given)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ignore_case_version_and_slashes() {
        let id = |method: Method, path: &str| {
            find(&method, path).map(|found| (found.operation.id.as_str(), found.parameters))
        };
        let get = |path| id(Method::GET, path);
        assert_eq!(get("/api/machines").expect("found").0, "machines.list");
        assert_eq!(get("/API//v1.0/Machines//").expect("found").0, "machines.list");
        assert_eq!(get("/api/machines/abc").expect("found"), ("machines.get", vec!["abc".into()]));
        let by_ip = ["10.0.0.1", "2024-01-01T00:00:00Z"];
        for path in [
            "/api/machines/findbyip(ip='10.0.0.1',timestamp=2024-01-01T00:00:00Z)",
            "/api/machines/FindByIp(timestamp=2024-01-01T00:00:00Z,ip='10.0.0.1')",
            "/api/machines/findbyip('10.0.0.1',2024-01-01T00:00:00Z)",
        ] {
            assert_eq!(get(path).expect("found").1, by_ip, "{path}");
        }
        assert_eq!(get("/api/nothing").expect_err("unknown").status, 404);
        assert_eq!(get("/api/%ff").expect_err("no UTF-8").status, 400);
        assert_eq!(get("/api/machines/%00").expect_err("a zero byte").status, 400);
        let refused = id(Method::DELETE, "/api/machines").expect_err("refused");
        assert_eq!((refused.status, refused.allow.as_deref()), (405, Some("GET")));
    }

    #[test]
    fn lists_are_counted_and_nothing_else() {
        let found = find(&Method::GET, "/api/alerts/$count").expect("found");
        assert_eq!((found.operation.id.as_str(), found.count), ("alerts.list", true));
        let own = find(&Method::GET, "/api/machines/abc/alerts/$count").expect("found");
        assert_eq!((own.operation.id.as_str(), own.count), ("machines.alerts.count", false));
        assert_eq!(find(&Method::GET, "/api/machines/abc/$count").expect_err("none").status, 404);
    }
}
