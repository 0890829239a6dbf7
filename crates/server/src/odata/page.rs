//! Pages of rows and their answers.

use super::{Collection, Query, skip_token};
use crate::edge::{ApiError, Call, json};
use crate::state::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde_json::{Map, Value as Json, json};
use vigie_database::{Row, Value};

/// A page of rows and what the answer says about the rest.
pub struct Page {
    pub rows: Vec<Row>,
    count: Option<i64>,
    next_link: Option<String>,
}

impl Collection {
    /// One page of rows; none where only their number was asked for.
    pub async fn page(&self, state: &State, query: &Query, call: &Call) -> Result<Page, ApiError> {
        let condition = match query.conditions.is_empty() {
            true => "1 = 1".to_owned(),
            false => query.conditions.join(" AND "),
        };
        let count = match query.count || call.count {
            true => Some(self.count(state, query, &condition).await?),
            false => None,
        };
        if call.count {
            return Ok(Page { rows: Vec::new(), count, next_link: None });
        }
        let mut values = query.values.clone();
        let mut after = query.after.as_ref().map_or_else(String::new, |after| {
            format!(" AND {}", skip_token::condition(&query.order, after, &mut values))
        });
        let mut skip = query.skip;
        if skip > 0
            && query.after.is_none()
            && self.in_own_order(query)
            && let Some(numbers) = self.numbers(&state.database, query)?
        {
            let Some(behind) = numbers.behind(self.from, skip).await? else {
                return Ok(Page { rows: Vec::new(), count, next_link: None });
            };
            skip = behind.rest;
            values.push(behind.before.into());
            after = format!(" AND {} < ${}", query.order[0].sql, values.len());
        }
        let order = query.order.iter().map(|key| {
            let place = match (key.descending, key.nullable) {
                (false, false) => "ASC",
                (true, false) => "DESC",
                (false, true) => "ASC NULLS FIRST",
                (true, true) => "DESC NULLS LAST",
            };
            format!("{} {place}", key.sql)
        });
        let order = order.collect::<Vec<_>>().join(", ");
        let keys: Vec<&str> = query.order.iter().map(|key| key.sql.as_str()).collect();
        let limit = format!("LIMIT {} OFFSET {}", query.size.saturating_add(1), skip);
        let which = match skip > 0 && self.key.ends_with("t.id") {
            // Skipped rows are walked over in an index where one fits, and never read.
            true => format!(
                "t.id IN (SELECT t.id FROM {} WHERE {condition}{after} ORDER BY {order} {limit}) \
                 ORDER BY {order}",
                self.from
            ),
            false => format!("{condition}{after} ORDER BY {order} {limit}"),
        };
        let sql = format!(
            "SELECT {}, {} FROM {} WHERE {which}",
            self.columns,
            keys.join(", "),
            self.from,
        );
        let mut rows = state.database.read(&complete(state, &sql), &values).await?;
        let more = rows.len() as u64 > query.size;
        rows.truncate(usize::try_from(query.size).unwrap_or(usize::MAX));
        // A client that named $top gets what it asked for; the others get everything, page by page.
        let last = rows.last().filter(|_| more && !query.topped);
        let next_link = last.map(|row| {
            let width = row.len();
            let keys: Vec<&Value> =
                (width - query.order.len()..width).map(|at| row.value(at)).collect();
            next_link(call, &skip_token::write(&query.order, &keys))
        });
        Ok(Page { rows, count, next_link })
    }

    async fn count(&self, state: &State, query: &Query, condition: &str) -> Result<i64, ApiError> {
        if let Some(numbers) = self.numbers(&state.database, query)?
            && let Some(number) = numbers.all().await?
        {
            return Ok(number);
        }
        let sql = format!("SELECT COUNT(*) FROM {} WHERE {condition}", self.from);
        let counted = state.database.read(&complete(state, &sql), &query.values).await?;
        Ok(counted.first().map_or(Ok(0), |row| row.integer(0))?)
    }

    /// The answer of a list: its page, or the bare number where the path ended in `/$count`.
    pub fn respond(
        &self,
        call: &Call,
        query: &Query,
        page: &Page,
        entities: Vec<Json>,
    ) -> Response {
        if !call.count {
            return json(200, &self.answer(call, query, page, entities));
        }
        let text = page.count.unwrap_or_default().to_string();
        (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text)
            .into_response()
    }

    /// The body of a list's answer.
    fn answer(&self, call: &Call, query: &Query, page: &Page, entities: Vec<Json>) -> Json {
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
        let mut answer = Map::new();
        let context = format!("{}/$metadata#{}/$entity", call.base, self.name);
        answer.insert("@odata.context".to_owned(), context.into());
        if let Some(properties) = entity.as_object_mut() {
            answer.append(properties);
        }
        Json::Object(answer)
    }
}

/// The address that the client called, behind the last row.
fn next_link(call: &Call, token: &str) -> String {
    let mut link = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in &call.query {
        if !name.eq_ignore_ascii_case("$skip") && !name.eq_ignore_ascii_case("$skiptoken") {
            link.append_pair(name, value);
        }
    }
    link.append_pair("$skiptoken", token);
    let host = call.base.trim_end_matches("/api");
    format!("{host}{}?{}", call.path, link.finish())
}

/// What the SQL of properties leaves open: the time, and how this database reads an array.
fn complete(state: &State, sql: &str) -> String {
    let mut sql = sql.replace("{now}", &state.now().to_string());
    while let Some(begin) = sql.find("{texts ") {
        let Some(end) = sql[begin..].find('}').map(|end| begin + end) else { break };
        let inner = sql[begin + "{texts ".len()..end].to_owned();
        let (column, alias) = inner.split_once(' ').unwrap_or((&inner, "x"));
        sql.replace_range(begin..=end, &state.database.json_texts(column, alias));
    }
    sql
}
