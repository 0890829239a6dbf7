//! Who did what: every change of the directory and every sign-in.

use crate::{Directory, DirectoryError, micros};
use uuid::Uuid;
use vigie_database::Transaction;

/// An entry, stored in the transaction of the change that it tells of.
pub struct Entry<'a> {
    pub tenant: Option<Uuid>,
    /// An application id, a user, or `first start`.
    pub actor: &'a str,
    /// For example `application.create`.
    pub action: &'a str,
    pub target: &'a str,
    /// `success`, or the number of the error.
    pub outcome: &'a str,
}

impl Directory {
    pub(crate) async fn audit(
        &self,
        transaction: &mut Transaction,
        entry: Entry<'_>,
    ) -> Result<(), DirectoryError> {
        let insert = "INSERT INTO audit (id, at, tenant, actor, action, target, outcome) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = [
            Uuid::new_v4().to_string().into(),
            micros(self.clock().now()).into(),
            entry.tenant.map(|tenant| tenant.to_string()).into(),
            entry.actor.into(),
            entry.action.into(),
            entry.target.into(),
            entry.outcome.into(),
        ];
        transaction.execute(insert, &values).await?;
        Ok(())
    }
}
