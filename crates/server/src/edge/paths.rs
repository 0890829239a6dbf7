//! Paths of the catalogue: compared without regard to case, with or without a version.

use super::ApiError;
use http::Method;
use percent_encoding::percent_decode_str;
use vigie_contract::operations::{OPERATIONS, Operation};

pub struct Found {
    pub operation: &'static Operation,
    pub parameters: Vec<String>,
}

/// The operation of a path under `/api` or `/api/v1.0`.
pub fn find(method: &Method, path: &str) -> Result<Found, ApiError> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments: Vec<&str> = decoded.trim_matches('/').split('/').collect();
    if segments.get(1).is_some_and(|version| version.eq_ignore_ascii_case("v1.0")) {
        segments.remove(1);
    }
    // `/machines/export` is no machine of that name: the path with the fewest parameters wins.
    let matching: Vec<Found> = (OPERATIONS.iter())
        .filter_map(|operation| {
            Some(Found { operation, parameters: matched(&operation.path, &segments)? })
        })
        .collect();
    let fewest = matching.iter().map(|found| found.parameters.len()).min();
    let best = matching.into_iter().filter(|found| Some(found.parameters.len()) == fewest);
    let (found, other_methods): (Vec<Found>, Vec<Found>) =
        best.partition(|found| found.operation.method.eq_ignore_ascii_case(method.as_str()));
    if let Some(found) = found.into_iter().next() {
        return Ok(found);
    }
    if !other_methods.is_empty() {
        let message = format!("The requested resource does not support http method '{method}'.");
        return Err(ApiError::new(405, "MethodNotAllowed", message));
    }
    let message = format!("No HTTP resource was found that matches the request path '{path}'.");
    Err(ApiError::new(404, "NotFound", message))
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
            // Functions such as `findbyip(…)` are no ids.
            if segment.contains('(') {
                return None;
            }
            parameters.push((*segment).to_owned());
        } else if let Some((name, _)) = wanted.split_once('(') {
            let (found, arguments) = segment.split_once('(')?;
            if !found.eq_ignore_ascii_case(name) {
                return None;
            }
            let arguments = arguments.strip_suffix(')')?.split(',');
            parameters.extend(arguments.map(|argument| {
                let value = argument.split_once('=').map_or(argument, |(_, value)| value);
                value.trim().trim_matches('\'').to_owned()
            }));
        } else if !wanted.eq_ignore_ascii_case(segment) {
            return None;
        }
    }
    Some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ignore_case_and_version() {
        let id = |method: Method, path: &str| {
            find(&method, path).map(|found| (found.operation.id.as_str(), found.parameters))
        };
        let get = |path| id(Method::GET, path);
        assert_eq!(get("/api/machines").expect("found").0, "machines.list");
        assert_eq!(get("/API/v1.0/Machines/").expect("found").0, "machines.list");
        assert_eq!(get("/api/machines/abc").expect("found"), ("machines.get", vec!["abc".into()]));
        let by_ip = get("/api/machines/findbyip(ip='10.0.0.1',timestamp=2024-01-01T00:00:00Z)");
        assert_eq!(by_ip.expect("found").1, ["10.0.0.1", "2024-01-01T00:00:00Z"]);
        assert_eq!(get("/api/nothing").expect_err("unknown").status, 404);
        assert_eq!(id(Method::DELETE, "/api/machines").expect_err("refused").status, 405);
    }
}
