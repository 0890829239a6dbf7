//! The query options of a request.

use super::{Collection, Property, Type, condition, skip_token};
use crate::edge::{ApiError, Call};
use serde_json::{Map, Value as Json};
use std::collections::HashSet;
use vigie_database::Value;

/// One key of an order.
pub struct OrderKey {
    pub sql: String,
    pub descending: bool,
    /// Whether it can be null; null comes before every value.
    pub nullable: bool,
}

/// The options of a request, ready for SQL.
pub struct Query {
    pub(super) conditions: Vec<String>,
    pub(super) values: Vec<Value>,
    pub(super) order: Vec<OrderKey>,
    pub(super) size: u64,
    pub(super) skip: u64,
    pub(super) count: bool,
    /// The page ends where the client asked, and no link follows.
    pub(super) topped: bool,
    /// Where the page before ended.
    pub(super) after: Option<Vec<Json>>,
    /// Whose rows, where the rows are a tenant's.
    pub(super) tenant: Option<String>,
    /// The client's own condition.
    pub(super) filter: Option<String>,
    /// Whether there are conditions besides the tenant and the filter.
    pub(super) restricted: bool,
    pub select: Option<Vec<String>>,
    pub expand: Vec<String>,
}

impl Collection {
    /// Reads the options; `tenant` restricts the rows, whatever they say.
    pub fn query(&self, call: &Call, tenant: Option<&str>) -> Result<Query, ApiError> {
        let mut query = Query {
            conditions: Vec::new(),
            values: Vec::new(),
            order: Vec::new(),
            size: self.max_page,
            skip: 0,
            count: false,
            topped: false,
            after: None,
            tenant: tenant.map(str::to_owned),
            filter: None,
            restricted: false,
            select: None,
            expand: Vec::new(),
        };
        if let Some(tenant) = tenant {
            query.values.push(tenant.into());
            query.conditions.push("t.tenant = $1".to_owned());
        }
        if let Some(size) = preferred_size(call)? {
            query.size = size.clamp(1, self.max_page);
        }
        let (mut token, mut seen) = (None, HashSet::new());
        for (name, value) in &call.query {
            let option = name.to_ascii_lowercase();
            if option.starts_with('$') && !seen.insert(option.clone()) {
                let message = format!("The query option '{name}' is given more than once.");
                return Err(ApiError::odata(message));
            }
            match option.as_str() {
                "$skiptoken" => token = Some(value.as_str()),
                "pagesize" => query.size = number(name, value)?.clamp(1, self.max_page),
                option => self.option(&mut query, option, name, value)?,
            }
        }
        if query.topped && query.size > self.max_page {
            return Err(ApiError::odata(format!(
                "The limit of '{}' for Top query has been exceeded. The value from the incoming \
                 request is '{}'.",
                self.max_page, query.size
            )));
        }
        self.finish_order(&mut query);
        if let Some(token) = token {
            query.after = Some(skip_token::read(token, &query.order)?);
        }
        Ok(query)
    }

    /// One option; `name` is how the client wrote it.
    fn option(
        &self,
        query: &mut Query,
        option: &str,
        name: &str,
        value: &str,
    ) -> Result<(), ApiError> {
        match option {
            "$filter" if value.trim().is_empty() => {}
            "$filter" => {
                let sql = condition::sql(value, self, &mut query.values)?;
                query.conditions.push(sql);
                query.filter = Some(value.to_owned());
            }
            "$top" => {
                query.size = number(name, value)?;
                query.topped = true;
            }
            "$skip" => query.skip = number(name, value)?,
            "$orderby" => query.order = self.order(&value.replace('+', " "))?,
            "$count" => {
                query.count = match value.to_ascii_lowercase().as_str() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(invalid(name, value)),
                }
            }
            "$select" => query.select = self.select(&value.replace('+', " "))?,
            "$expand" => query.expand = self.expand(&value.replace('+', " "))?,
            "$format" if value.to_ascii_lowercase().contains("json") => {}
            option if option.starts_with('$') => {
                return Err(ApiError::odata(format!(
                    "The query option '{name}' is not supported."
                )));
            }
            // Older names of filters and what proxies add: ignored, as unknown parameters are.
            _ => {}
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<&'static Property, ApiError> {
        let found = self.properties.iter().find(|p| p.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| condition::unknown(self.name, name))
    }

    /// `None` for all properties.
    fn select(&self, text: &str) -> Result<Option<Vec<String>>, ApiError> {
        let mut names = Vec::new();
        for name in text.split(',').map(str::trim) {
            if name == "*" {
                return Ok(None);
            }
            if !self.shown.iter().any(|shown| shown.eq_ignore_ascii_case(name)) {
                self.find(name)?;
            }
            names.push(name.to_owned());
        }
        Ok(Some(names))
    }

    fn expand(&self, text: &str) -> Result<Vec<String>, ApiError> {
        let mut names = Vec::new();
        for name in text.split(',').map(|name| name.trim().to_lowercase()) {
            if name == "*" {
                names.extend(self.expandable.iter().map(|name| (*name).to_owned()));
            } else if self.expandable.contains(&name.as_str()) {
                names.push(name);
            } else {
                return Err(ApiError::odata(format!("'{name}' cannot be expanded.")));
            }
        }
        Ok(names)
    }

    fn order(&self, text: &str) -> Result<Vec<OrderKey>, ApiError> {
        let mut keys = Vec::new();
        for part in text.split(',') {
            let mut words = part.split_whitespace();
            let property = self.find(words.next().unwrap_or_default())?;
            if let Type::Many(_) = property.ty {
                let name = property.name;
                let message = format!("'{name}' is a collection: nothing is ordered by it.");
                return Err(ApiError::odata(message));
            }
            let descending = match words.next().map(str::to_ascii_lowercase).as_deref() {
                None | Some("asc") => false,
                Some("desc") => true,
                Some(other) => {
                    return Err(ApiError::odata(format!("'{other}' is no direction of $orderby.")));
                }
            };
            if let Some(more) = words.next() {
                return Err(ApiError::odata(format!("'{more}' was not expected in $orderby.")));
            }
            // What is the same for all rows orders nothing.
            if !property.sql.starts_with(|c: char| c == '\'' || c.is_ascii_digit()) {
                let nullable = !self.never_null.contains(&property.sql);
                keys.push(OrderKey { sql: property.sql.to_owned(), descending, nullable });
            }
        }
        Ok(keys)
    }

    /// The columns of the default order, and whether they go down.
    fn keys(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.key.split(',').map(str::trim).map(|part| match part.strip_suffix(" DESC") {
            Some(sql) => (sql, true),
            None => (part, false),
        })
    }

    /// Whether the order is the default one.
    pub(super) fn in_own_order(&self, query: &Query) -> bool {
        let own: Vec<(&str, bool)> = self.keys().collect();
        query.order.iter().map(|key| (key.sql.as_str(), key.descending)).eq(own)
    }

    /// Adds the collection's key, so that every row has its place.
    fn finish_order(&self, query: &mut Query) {
        for (sql, descending) in self.keys() {
            match query.order.iter_mut().find(|key| key.sql == sql) {
                Some(key) => key.nullable = false,
                None => {
                    let sql = sql.to_owned();
                    query.order.push(OrderKey { sql, descending, nullable: false });
                }
            }
        }
    }
}

impl Query {
    /// One more condition; `sql` ends in `$`, behind which the value's number is put.
    pub fn restrict(&mut self, sql: &str, value: Value) {
        self.values.push(value);
        self.require(format!("{sql}{}", self.values.len()));
    }

    /// A value for a condition of the caller's own: its number.
    pub fn value(&mut self, value: Value) -> usize {
        self.values.push(value);
        self.values.len()
    }

    /// One more condition without further values.
    pub fn require(&mut self, sql: String) {
        self.conditions.push(sql);
        self.restricted = true;
    }

    /// The chosen properties, and those that were expanded.
    pub(super) fn selected(&self, entity: Json) -> Json {
        let (Some(select), Json::Object(properties)) = (&self.select, &entity) else {
            return entity;
        };
        let chosen = |name: &str| {
            (select.iter().chain(&self.expand)).any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let kept = properties.iter().filter(|(name, _)| chosen(name));
        Json::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
    }
}

fn number(name: &str, value: &str) -> Result<u64, ApiError> {
    let number = value.trim().parse::<u64>().ok();
    number.filter(|number| *number <= i64::MAX as u64).ok_or_else(|| invalid(name, value))
}

fn invalid(name: &str, value: &str) -> ApiError {
    let value: String = value.chars().take(80).collect();
    ApiError::odata(format!("Invalid value '{value}' for the query option '{name}'."))
}

/// `Prefer: odata.maxpagesize=…` (OData 4.0, part 1, section 8.2.8.5).
fn preferred_size(call: &Call) -> Result<Option<u64>, ApiError> {
    let Some(prefer) = call.headers.get("prefer").and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    for part in prefer.split([',', ';']) {
        if let Some((name, value)) = part.split_once('=') {
            let name = name.trim().to_ascii_lowercase();
            if name == "odata.maxpagesize" || name == "maxpagesize" {
                return Ok(Some(number("odata.maxpagesize", value)?));
            }
        }
    }
    Ok(None)
}
