//! How many rows of each kind a tenant has by day and by minute, kept with the rows: `$skip` over most
//! of a million rows then walks over those of one minute.

use super::condition::{self, Kept};
use super::{Collection, Query};
use crate::edge::ApiError;
use vigie_database::{Database, DatabaseError, Transaction, Value};

const SECOND: i64 = 1_000_000;
/// Days tell which day, its minutes which minute.
const DAY: i64 = 86_400;
const MINUTE: i64 = 60;

/// Numbers that are kept of a collection's rows.
pub struct Counted {
    /// Has the columns `tenant`, `seconds` (the length of the time, of a day or a minute), `began`
    /// (microseconds since the Unix epoch), the kinds, and `number`.
    pub table: &'static str,
    /// The time by which rows are counted, with which the collection's key begins, newest first.
    pub time: &'static str,
    /// Columns that tell kinds of rows apart, the same in both tables.
    pub kinds: &'static [&'static str],
}

impl Counted {
    /// Counts rows that come (1) or go (-1), in the transaction that writes them. `kinds` are the
    /// values of the kinds' columns.
    pub async fn change(
        &self,
        transaction: &mut Transaction,
        tenant: &str,
        time: i64,
        kinds: &[&str],
        change: i64,
    ) -> Result<(), DatabaseError> {
        let names = self.kinds.iter().map(|kind| kind.trim_start_matches("t."));
        let names = names.collect::<Vec<_>>().join(", ");
        let places = (0..kinds.len()).map(|at| format!("${}", at + 5));
        let places = places.collect::<Vec<_>>().join(", ");
        let table = self.table;
        let insert = format!(
            "INSERT INTO {table} (tenant, seconds, began, number, {names}) \
             VALUES ($1, $2, $3, $4, {places}) ON CONFLICT (tenant, seconds, began, {names}) \
             DO UPDATE SET number = {table}.number + excluded.number"
        );
        for seconds in [DAY, MINUTE] {
            let mut values: Vec<Value> =
                vec![tenant.into(), seconds.into(), start(time, seconds).into(), change.into()];
            values.extend(kinds.iter().map(|kind| Value::from(*kind)));
            transaction.execute(&insert, &values).await?;
        }
        Ok(())
    }
}

/// Where the time of that length begins that holds `time`.
fn start(time: i64, seconds: i64) -> i64 {
    time - time.rem_euclid(seconds * SECOND)
}

/// Rows of a query whose numbers are kept.
pub struct Numbers<'a> {
    counted: &'a Counted,
    database: &'a Database,
    kept: Kept,
}

/// The first rows of a list's order that are left out.
pub struct Behind {
    /// The rest begins before this time, in microseconds since the Unix epoch,
    pub before: i64,
    /// and behind so many more rows.
    pub rest: u64,
}

impl Collection {
    /// The kept numbers for a query, where they answer it.
    pub(super) fn numbers<'a>(
        &'a self,
        database: &'a Database,
        query: &Query,
    ) -> Result<Option<Numbers<'a>>, ApiError> {
        let (Some(counted), Some(tenant)) = (&self.counted, &query.tenant) else {
            return Ok(None);
        };
        if query.restricted {
            return Ok(None);
        }
        let filter = query.filter.as_deref();
        let kept = condition::kept(filter, self, counted, tenant)?;
        Ok(kept.map(|kept| Numbers { counted, database, kept }))
    }
}

impl Numbers<'_> {
    /// How many rows there are; `None` where a bound of the time cuts through what is counted.
    pub async fn all(&self) -> Result<Option<i64>, DatabaseError> {
        if self.kept.since || self.kept.before.is_some() {
            return Ok(None);
        }
        let rows = self.by_time(DAY, i64::MIN, i64::MAX).await?;
        Ok(Some(rows.iter().map(|(_, number)| number).sum()))
    }

    /// Where the row behind the newest `skip` rows is. `None` if there are not as many rows.
    pub async fn behind(&self, from: &str, skip: u64) -> Result<Option<Behind>, DatabaseError> {
        let mut skip = i64::try_from(skip).unwrap_or(i64::MAX);
        // From the newest time that the query wants: the rest of its minute by the rows themselves, of
        // its day by minutes, then days.
        let mut until = i64::MAX;
        if let Some(before) = self.kept.before {
            until = start(before, MINUTE);
            let newest = self.rows_between(from, until, before).await?;
            if skip < newest {
                return Ok(Some(Behind { before, rest: skip.cast_unsigned() }));
            }
            skip -= newest;
            let day = start(before, DAY);
            match self.step(MINUTE, day, until, &mut skip).await? {
                Some(minute) => return Ok(Some(found(minute, MINUTE, skip))),
                None => until = day,
            }
        }
        let Some(day) = self.step(DAY, i64::MIN, until, &mut skip).await? else {
            return Ok(None);
        };
        let minute = self.step(MINUTE, day, day.saturating_add(DAY * SECOND), &mut skip).await?;
        Ok(minute.map(|minute| found(minute, MINUTE, skip)))
    }

    /// Goes down over times as long as there are enough rows to skip: the one where they end.
    async fn step(
        &self,
        seconds: i64,
        from: i64,
        until: i64,
        skip: &mut i64,
    ) -> Result<Option<i64>, DatabaseError> {
        for (began, number) in self.by_time(seconds, from, until).await? {
            if *skip < number {
                return Ok(Some(began));
            }
            *skip -= number;
        }
        Ok(None)
    }

    /// Numbers by time, newest first.
    async fn by_time(
        &self,
        seconds: i64,
        from: i64,
        until: i64,
    ) -> Result<Vec<(i64, i64)>, DatabaseError> {
        let mut values = self.kept.values.clone();
        let first = values.len() + 1;
        values.extend([seconds.into(), from.into(), until.into()]);
        let select = format!(
            "SELECT t.began, CAST(SUM(t.number) AS BIGINT) FROM {} t WHERE {} AND t.seconds = ${first} \
             AND t.began >= ${} AND t.began < ${} GROUP BY t.began ORDER BY t.began DESC",
            self.counted.table,
            self.kept.sql,
            first + 1,
            first + 2,
        );
        let rows = self.database.read(&select, &values).await?;
        rows.iter().map(|row| Ok((row.integer(0)?, row.integer(1)?))).collect()
    }

    /// How many rows are between two times.
    async fn rows_between(&self, rows: &str, from: i64, until: i64) -> Result<i64, DatabaseError> {
        let mut values = self.kept.values.clone();
        let first = values.len() + 1;
        values.extend([from.into(), until.into()]);
        let time = self.counted.time;
        let select = format!(
            "SELECT COUNT(*) FROM {rows} WHERE {} AND {time} >= ${first} AND {time} < ${}",
            self.kept.sql,
            first + 1,
        );
        let found = self.database.read(&select, &values).await?;
        found.first().map_or(Ok(0), |row| row.integer(0))
    }
}

fn found(began: i64, seconds: i64, rest: i64) -> Behind {
    Behind { before: began + seconds * SECOND, rest: rest.cast_unsigned() }
}
