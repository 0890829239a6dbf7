//! JSON paths as Kusto writes them: `$.a['b'][0]`.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Key(String),
    /// Negative places count from the end.
    At(i64),
}

/// The steps of a path; `None` where the text is none. The `$` at the beginning may be missing.
pub fn parse(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.trim().strip_prefix('$').unwrap_or(text.trim());
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']')?;
            let key = inner[..end].trim();
            steps.push(match key.strip_prefix(['\'', '"']) {
                Some(quoted) => Step::Key(quoted.strip_suffix(['\'', '"'])?.to_owned()),
                None => Step::At(key.parse().ok()?),
            });
            rest = &inner[end + 1..];
            continue;
        }
        let inner = match rest.strip_prefix('.') {
            Some(inner) => inner,
            // A bare name may begin the path.
            None if steps.is_empty() => rest,
            None => return None,
        };
        let end = inner.find(['.', '[']).unwrap_or(inner.len());
        if end == 0 {
            return None;
        }
        steps.push(Step::Key(inner[..end].to_owned()));
        rest = &inner[end..];
    }
    Some(steps)
}

pub fn find<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::At(at) => {
            let array = value.as_array()?;
            let at = if *at < 0 { at + array.len() as i64 } else { *at };
            array.get(usize::try_from(at).ok()?)
        }
    })
}

/// Sets what the path names, making bags on the way; what is no bag there stays.
pub fn set(value: &mut Value, path: &[Step], new: Value) {
    let Some((first, rest)) = path.split_first() else {
        *value = new;
        return;
    };
    match (first, value) {
        (Step::Key(key), Value::Object(bag)) => {
            if rest.is_empty() {
                bag.shift_remove(key);
                bag.insert(key.clone(), new);
            } else {
                let inner = bag.entry(key.clone()).or_insert_with(|| serde_json::json!({}));
                set(inner, rest, new);
            }
        }
        (Step::At(at), Value::Array(array)) => {
            if let Some(inner) = usize::try_from(*at).ok().and_then(|at| array.get_mut(at)) {
                set(inner, rest, new);
            }
        }
        _ => {}
    }
}

pub fn remove(value: &mut Value, path: &[Step]) {
    match (path, value) {
        ([Step::Key(key)], Value::Object(bag)) => drop(bag.shift_remove(key)),
        ([Step::Key(key), rest @ ..], Value::Object(bag)) => {
            if let Some(inner) = bag.get_mut(key) {
                remove(inner, rest);
            }
        }
        ([Step::At(at), rest @ ..], Value::Array(array)) if !rest.is_empty() => {
            if let Some(inner) = usize::try_from(*at).ok().and_then(|at| array.get_mut(at)) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}
