//! OData query options over SQL, for the documented properties of an entity.

mod filter;

use crate::edge::{ApiError, Call};
use crate::state::State;
use serde_json::{Value as Json, json};
use vigie_database::{Row, Value};

/// How a property is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Integer,
    Time,
    /// A JSON array of texts: `any(x: x eq '…')`.
    Texts,
}

/// A property that may be filtered and ordered by.
pub struct Property {
    pub name: &'static str,
    /// SQL that gives it.
    pub sql: &'static str,
    pub ty: Type,
}

/// A collection: where its rows are and what may be asked of them.
pub struct Collection {
    /// Name in `@odata.context`, for example `Machines`.
    pub name: &'static str,
    /// `FROM` and its joins.
    pub from: &'static str,
    /// Columns that the feature reads.
    pub columns: &'static str,
    pub properties: &'static [Property],
    /// Properties that are only shown.
    pub shown: &'static [&'static str],
    /// Properties that `$expand` fills, in lower case.
    pub expandable: &'static [&'static str],
    /// Default order, which is also the last key of any order.
    pub key: &'static str,
    pub max_page: u64,
}

/// The options of a request, ready for SQL.
pub struct Query {
    conditions: Vec<String>,
    values: Vec<Value>,
    order: String,
    top: u64,
    skip: u64,
    count: bool,
    pub select: Option<Vec<String>>,
    pub expand: Vec<String>,
    next: String,
}

/// A page of rows and what the answer says about the rest.
pub struct Page {
    pub rows: Vec<Row>,
    count: Option<i64>,
    next_link: Option<String>,
}

impl Collection {
    fn property(&self, name: &str) -> Result<&'static Property, ApiError> {
        let found =
            self.properties.iter().find(|property| property.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let message = format!(
                "Could not find a property named '{name}' on type '{}' that can be used here.",
                self.name
            );
            ApiError::odata(message)
        })
    }

    /// Reads the options; `tenant` restricts the rows, whatever they say.
    pub fn query(&self, call: &Call, tenant: Option<&str>) -> Result<Query, ApiError> {
        let mut query = Query {
            conditions: Vec::new(),
            values: Vec::new(),
            order: String::new(),
            top: self.max_page,
            skip: 0,
            count: false,
            select: None,
            expand: Vec::new(),
            next: format!("{}{}", call.base.trim_end_matches("/api"), call.path),
        };
        if let Some(tenant) = tenant {
            query.restrict("t.tenant = $", tenant.into());
        }
        for (name, value) in &call.query {
            let number = || {
                value.parse::<u64>().map_err(|_| {
                    ApiError::odata(format!(
                        "Invalid value '{value}' for the query option '{name}'."
                    ))
                })
            };
            match name.to_ascii_lowercase().as_str() {
                "$filter" => {
                    let sql = filter::sql(value, self, &mut query.values)?;
                    query.conditions.push(sql);
                }
                "$top" => {
                    query.top = number()?;
                    if query.top > self.max_page {
                        return Err(ApiError::odata(format!(
                            "The limit of '{}' for Top query has been exceeded. The value from the \
                             incoming request is '{}'.",
                            self.max_page, query.top
                        )));
                    }
                }
                "$skip" => query.skip = number()?,
                "$orderby" => query.order = self.order(value)?,
                "$count" => query.count = value.eq_ignore_ascii_case("true"),
                "$select" => {
                    query.select = Some(self.select(value)?);
                }
                "$expand" => {
                    query.expand = self.expand(value)?;
                }
                option if option.starts_with('$') => {
                    return Err(ApiError::odata(format!(
                        "The query option '{name}' is not supported."
                    )));
                }
                _ => {}
            }
        }
        Ok(query)
    }

    fn select(&self, text: &str) -> Result<Vec<String>, ApiError> {
        let names = text.split(',').map(str::trim);
        names
            .map(|name| {
                if !self.shown.iter().any(|shown| shown.eq_ignore_ascii_case(name)) {
                    self.property(name)?;
                }
                Ok(name.to_owned())
            })
            .collect()
    }

    fn expand(&self, text: &str) -> Result<Vec<String>, ApiError> {
        let names = text.split(',').map(|name| name.trim().to_lowercase());
        names
            .map(|name| match self.expandable.contains(&name.as_str()) {
                true => Ok(name),
                false => Err(ApiError::odata(format!("'{name}' cannot be expanded."))),
            })
            .collect()
    }

    fn order(&self, text: &str) -> Result<String, ApiError> {
        let mut keys = Vec::new();
        for part in text.split(',') {
            let mut words = part.split_whitespace();
            let name = words.next().unwrap_or_default();
            let direction = match words.next() {
                None | Some("asc") => "ASC",
                Some("desc") => "DESC",
                Some(other) => {
                    return Err(ApiError::odata(format!("'{other}' is no direction of $orderby.")));
                }
            };
            keys.push(format!("{} {direction}", self.property(name)?.sql));
        }
        Ok(keys.join(", "))
    }

    /// One page of rows. `{now}` in the SQL of a property is the time of the request.
    pub async fn page(&self, state: &State, query: &Query, call: &Call) -> Result<Page, ApiError> {
        let condition = match query.conditions.is_empty() {
            true => "1 = 1".to_owned(),
            false => query.conditions.join(" AND "),
        };
        let order = match query.order.is_empty() {
            true => self.key.to_owned(),
            false => format!("{}, {}", query.order, self.key),
        };
        let sql = format!(
            "SELECT {} FROM {} WHERE {condition} ORDER BY {order} LIMIT {} OFFSET {}",
            self.columns,
            self.from,
            query.top + 1,
            query.skip
        );
        let now = state.now().to_string();
        let sql = sql.replace("{now}", &now);
        let mut rows = state.database.read(&sql, &query.values).await?;
        let more = rows.len() as u64 > query.top;
        rows.truncate(query.top as usize);
        let count = match query.count {
            true => {
                let sql = format!("SELECT COUNT(*) FROM {} WHERE {condition}", self.from);
                let sql = sql.replace("{now}", &now);
                let counted = state.database.read(&sql, &query.values).await?;
                Some(counted.first().map_or(Ok(0), |row| row.integer(0))?)
            }
            false => None,
        };
        // A client that named $top gets what it asked for; the others get everything, page by page.
        let asked = call.query.iter().any(|(name, _)| name.eq_ignore_ascii_case("$top"));
        let next_link = (more && !asked).then(|| {
            let mut link = url::form_urlencoded::Serializer::new(String::new());
            for (name, value) in &call.query {
                if !name.eq_ignore_ascii_case("$skip") {
                    link.append_pair(name, value);
                }
            }
            link.append_pair("$skip", &(query.skip + query.top).to_string());
            format!("{}?{}", query.next, link.finish())
        });
        Ok(Page { rows, count, next_link })
    }

    /// The answer of a list.
    pub fn answer(&self, call: &Call, query: &Query, page: &Page, entities: Vec<Json>) -> Json {
        let mut answer = json!({
            "@odata.context": format!("{}/$metadata#{}", call.base, self.name),
        });
        if let Some(count) = page.count {
            answer["@odata.count"] = count.into();
        }
        let entities = entities.into_iter().map(|entity| query.selected(entity));
        answer["value"] = entities.collect();
        if let Some(next) = &page.next_link {
            answer["@odata.nextLink"] = next.as_str().into();
        }
        answer
    }

    /// One entity with its context.
    pub fn entity(&self, call: &Call, mut entity: Json) -> Json {
        let mut answer = serde_json::Map::new();
        let context = format!("{}/$metadata#{}/$entity", call.base, self.name);
        answer.insert("@odata.context".to_owned(), context.into());
        if let Some(properties) = entity.as_object_mut() {
            answer.append(properties);
        }
        Json::Object(answer)
    }
}

impl Query {
    /// One more condition; `sql` ends in `$`, behind which the value's number is put.
    pub fn restrict(&mut self, sql: &str, value: Value) {
        self.values.push(value);
        self.conditions.push(format!("{sql}{}", self.values.len()));
    }

    fn selected(&self, entity: Json) -> Json {
        let (Some(select), Json::Object(properties)) = (&self.select, &entity) else {
            return entity;
        };
        let chosen = |name: &str| select.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
        let kept = properties.iter().filter(|(name, _)| chosen(name));
        Json::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}
