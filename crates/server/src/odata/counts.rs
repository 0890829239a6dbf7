//! How many rows a tenant has by day and by minute, kept with the rows: `$skip` over most of a million
//! rows then walks over those of one minute.
//!
//! The table of a collection has the columns `tenant`, `seconds` (the length of the time, one of
//! [`LENGTHS`]), `began` (microseconds since the Unix epoch) and `number`.

use vigie_database::{Database, DatabaseError, Transaction};

const SECOND: i64 = 1_000_000;
/// Days tell which day, its minutes which minute.
const LENGTHS: [i64; 2] = [86_400, 60];

/// Counts a new row whose time is `created`, in the transaction that writes it.
pub async fn count(
    transaction: &mut Transaction,
    table: &str,
    tenant: &str,
    created: i64,
) -> Result<(), DatabaseError> {
    let insert = format!(
        "INSERT INTO {table} (tenant, seconds, began, number) VALUES ($1, $2, $3, 1) \
         ON CONFLICT (tenant, seconds, began) DO UPDATE SET number = {table}.number + 1"
    );
    for seconds in LENGTHS {
        let began = created - created.rem_euclid(seconds * SECOND);
        transaction.execute(&insert, &[tenant.into(), seconds.into(), began.into()]).await?;
    }
    Ok(())
}

/// How many rows the tenant has.
pub async fn all(database: &Database, table: &str, tenant: &str) -> Result<i64, DatabaseError> {
    let select = format!(
        "SELECT CAST(COALESCE(SUM(number), 0) AS BIGINT) FROM {table} WHERE tenant = $1 AND seconds = $2"
    );
    let rows = database.read(&select, &[tenant.into(), LENGTHS[0].into()]).await?;
    rows.first().map_or(Ok(0), |row| row.integer(0))
}

/// Where the row behind the newest `skip` rows is: older than the first number, and behind so many
/// others that are. `None` if there are not as many rows.
pub async fn behind(
    database: &Database,
    table: &str,
    tenant: &str,
    skip: u64,
) -> Result<Option<(i64, u64)>, DatabaseError> {
    let select = format!(
        "SELECT began, number FROM {table} WHERE tenant = $1 AND seconds = $2 AND began >= $3 AND \
         began < $4 ORDER BY began DESC"
    );
    let (mut from, mut until, mut skip) = (i64::MIN, i64::MAX, skip);
    for seconds in LENGTHS {
        let values = [tenant.into(), seconds.into(), from.into(), until.into()];
        let mut found = false;
        for row in database.read(&select, &values).await? {
            let (began, number) = (row.integer(0)?, row.integer(1)?.cast_unsigned());
            if skip < number {
                (from, until, found) = (began, began + seconds * SECOND, true);
                break;
            }
            skip -= number;
        }
        if !found {
            return Ok(None);
        }
    }
    Ok(Some((until, skip)))
}
