//! How investigations go on: alerts that wait become investigations, those give orders, what the
//! orders find gets its verdict, is removed or waits for a person, and in the end there is a state.
//!
//! Everything is in the database, so a server that was killed, or another node, goes on from there; a
//! step that two take at the same instant counts once.

use super::entities;
use super::store::{
    self, Found, Investigation, MOST_ROUNDS, NewFound, NewInvestigation, Remediation, Task,
};
use super::verdicts::{self, Reputation, Verdict};
use crate::edge::ApiError;
use crate::features::alerts::{self, Queued};
use crate::features::machine_actions::{self, Investigated, NewAction, ORDERS_INVESTIGATE};
use crate::features::{service, whereabouts};
use crate::state::State;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use uuid::Uuid;
use vigie_contract::sensor::{Command, InvestigatedEntities};
use vigie_contract::service::{Automation, AutomationLevel};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many looks pass between two at what waits for machines.
const LOOKS_AT_WAITING: u64 = 10;
const MINUTE: i64 = 60_000_000;
/// A machine that has not fetched its order after this time is away.
const PATIENCE: i64 = 10 * MINUTE;
/// What nobody decides about for this long is not pursued.
const UNDECIDED: i64 = 7 * 24 * 60 * MINUTE;
/// Who orders what nobody ordered.
const REQUESTOR: &str = "Automated investigation";
/// `HRESULT_FROM_WIN32(ERROR_FILE_NOT_FOUND)`: there is nothing left to remove.
const NOT_FOUND: i64 = 0x8007_0002_u32 as i32 as i64;

/// Begins investigations and brings them on, until the server stops.
pub async fn run(state: State) {
    for look in 0_u64.. {
        tokio::select! {
            () = state.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Err(error) = step(&state, look % LOOKS_AT_WAITING == 0).await {
            tracing::error!(error = error.message, "investigations go on later");
        }
    }
}

/// Brings all on; those that wait for machines only if asked to, since they may do so for days.
async fn step(state: &State, waiting: bool) -> Result<(), ApiError> {
    for alert in alerts::queued(state).await? {
        told(begin(state, &alert).await);
    }
    advance_running(state, None, waiting).await?;
    for investigation in store::decided(state, state.now() - UNDECIDED).await? {
        told(decide(state, &investigation).await);
    }
    Ok(())
}

/// One that fails holds up no other.
fn told(outcome: Result<(), ApiError>) {
    if let Err(error) = outcome {
        tracing::error!(error = error.message, "an investigation goes on later");
    }
}

/// Brings on what runs in a tenant, so that a caller sees the present state.
pub async fn advance_all(state: &State, tenant: Uuid) -> Result<(), ApiError> {
    machine_actions::expire(state).await?;
    advance_running(state, Some(tenant), true).await
}

/// Brings on what runs, of one tenant or all, page by page.
async fn advance_running(
    state: &State,
    tenant: Option<Uuid>,
    waiting: bool,
) -> Result<(), ApiError> {
    let mut last = 0;
    loop {
        let page = store::running(state, tenant, waiting, last).await?;
        let Some(end) = page.last() else { return Ok(()) };
        last = end.number;
        for investigation in &page {
            told(advance(state, investigation).await);
        }
    }
}

/// Begins the investigation of an alert, or adds it to the one that runs on its machine.
async fn begin(state: &State, alert: &Queued) -> Result<(), ApiError> {
    let now = state.now();
    let mut transaction = state.database.begin().await?;
    let automation = service::automation(&mut transaction, alert.tenant).await?;
    if automation.level == AutomationLevel::NoAutomatedResponse {
        drop(transaction);
        return alerts::leave(state, &alert.id).await;
    }
    let running = store::running_on(&mut transaction, alert.tenant, &alert.machine).await?;
    let number = match running {
        Some(number) if store::hold(&mut transaction, number).await? => number,
        _ => {
            let new = NewInvestigation {
                tenant: alert.tenant,
                machine: &alert.machine,
                machine_name: &alert.machine_name,
                alert: &alert.id,
                requestor: REQUESTOR,
                comment: &format!("Investigation of alert {}", alert.id),
                app: None,
            };
            store::insert(&mut transaction, now, &new).await?
        }
    };
    if alerts::join(&mut transaction, now, &alert.id, number).await? {
        transaction.commit().await?;
        tracing::info!(number, alert = alert.id, "an alert is investigated");
    }
    Ok(())
}

/// Does what can be done for an investigation at this moment.
pub async fn advance(state: &State, investigation: &Investigation) -> Result<(), ApiError> {
    let number = investigation.number;
    let (alerts, evidence) = alerts::evidence_of_investigation(state, number).await?;
    let new = entities::minus(&entities::of_evidence(&evidence), &investigation.looked);
    let mut complete = entities::is_empty(&new);
    if !complete && investigation.rounds < MOST_ROUNDS {
        let round = entities::round(&new, &evidence);
        let tasks = plan(state, investigation, &round).await?;
        let looked = entities::union(&investigation.looked, &round);
        complete = entities::is_empty(&entities::minus(&new, &round));
        let mut transaction = state.database.begin().await?;
        store::add_round(&mut transaction, number, investigation.rounds, &looked, &tasks).await?;
        transaction.commit().await?;
    }
    let settings = service::settings(state, investigation.tenant).await?;
    let automation = service::automation_of(&settings);
    give_orders(state, investigation, &store::tasks(state, number).await?).await?;
    let orders = machine_actions::orders_of_investigation(state, &number.to_string()).await?;
    note(state, investigation, &orders, automation.level).await?;
    remediate(state, investigation).await?;
    conclude(state, investigation, (alerts, &orders, complete), automation).await
}

/// A task for the machine itself and for each other one whose events name one of the files, with the
/// places where they named it.
async fn plan(
    state: &State,
    investigation: &Investigation,
    wanted: &InvestigatedEntities,
) -> Result<Vec<Task>, ApiError> {
    let seen = whereabouts::machines(state, investigation.tenant, &wanted.sha1).await?;
    let own = (investigation.machine.clone(), investigation.machine_name.clone());
    let mut machines = BTreeMap::from([(own.0.clone(), task(own.0, own.1, wanted, &[]))]);
    for seen in seen {
        let name = match seen.machine == investigation.machine {
            true => investigation.machine_name.clone(),
            false => seen.machine_name,
        };
        let task = task(seen.machine.clone(), name, wanted, &seen.paths);
        machines.insert(seen.machine, task);
    }
    Ok(machines.into_values().collect())
}

/// What to look for on a machine.
pub fn task(
    machine: String,
    machine_name: String,
    wanted: &InvestigatedEntities,
    paths: &[String],
) -> Task {
    let mut entities = wanted.clone();
    for path in paths {
        entities::add(&mut entities.paths, path.clone());
    }
    let id = Uuid::new_v4().to_string();
    Task { id, machine, machine_name, entities, action: None, noted: false }
}

/// Orders what was not ordered yet, where no other investigation is at work.
async fn give_orders(
    state: &State,
    investigation: &Investigation,
    tasks: &[Task],
) -> Result<(), ApiError> {
    for task in tasks.iter().filter(|task| task.action.is_none()) {
        let new = NewAction {
            tenant: investigation.tenant,
            machine: task.machine.clone(),
            machine_name: task.machine_name.clone(),
            kind: ORDERS_INVESTIGATE,
            scope: None,
            requestor: investigation.requestor.clone(),
            app_id: investigation.app,
            comment: investigation.comment.clone(),
            command: Command::Investigate { entities: task.entities.clone() },
            related_sha1: None,
            external_id: None,
            commands: None,
            investigation: Some(investigation.number.to_string()),
        };
        let mut transaction = state.database.begin().await?;
        let Some(action) =
            free(machine_actions::insert(&mut transaction, state.now(), &new).await)?
        else {
            continue;
        };
        if store::assign(&mut transaction, &task.id, action).await? {
            transaction.commit().await?;
            state.waiting.wake(&task.machine);
            state.publish.notify_one();
        }
    }
    Ok(())
}

/// `None` where an order of the same kind is under way on the machine: it is tried again later.
fn free(inserted: Result<Uuid, ApiError>) -> Result<Option<Uuid>, ApiError> {
    match inserted {
        Err(error) if error.code == "ActiveRequestAlreadyExists" => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Writes down what ended orders found, with what is thought of it.
async fn note(
    state: &State,
    investigation: &Investigation,
    orders: &[Investigated],
    level: AutomationLevel,
) -> Result<(), ApiError> {
    let tasks = store::tasks(state, investigation.number).await?;
    for task in tasks.iter().filter(|task| !task.noted) {
        let order = orders.iter().find(|order| Some(&order.id) == task.action.as_ref());
        let Some(order) = order.filter(|order| !order.is_open()) else { continue };
        let known = reputations(state, investigation.tenant, order).await?;
        let mut found: Vec<NewFound> = Vec::with_capacity(order.findings.len());
        for finding in &order.findings {
            let reputation = finding.sha1.as_ref().and_then(|sha1| known.get(sha1));
            let verdict = verdicts::verdict(finding, reputation.copied().unwrap_or_default());
            let at_once = finding.sha1.is_some()
                && verdicts::is_removed_at_once(level, verdict, finding.path.as_deref());
            let remediation = match (verdict, at_once) {
                (Verdict::NoThreatsFound, _) => Remediation::None,
                (_, true) => Remediation::Allowed,
                (_, false) => Remediation::Waiting,
            };
            let (machine, machine_name) = (&*order.machine, &*order.machine_name);
            found.push(NewFound { machine, machine_name, finding, verdict, remediation });
        }
        wait_together(&mut found);
        let mut transaction = state.database.begin().await?;
        let (now, number) = (state.now(), investigation.number);
        store::note(&mut transaction, now, number, &task.id, &found).await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// A file is removed with all its copies, so it waits if one of them has to. What earlier orders found
/// is compared in [`remediate`].
fn wait_together(found: &mut [NewFound<'_>]) {
    let waiting: Vec<Option<String>> = found
        .iter()
        .filter(|found| found.remediation == Remediation::Waiting)
        .map(|found| found.finding.sha1.clone())
        .collect();
    for found in found.iter_mut().filter(|found| found.remediation == Remediation::Allowed) {
        if waiting.contains(&found.finding.sha1) {
            found.remediation = Remediation::Waiting;
        }
    }
}

async fn reputations(
    state: &State,
    tenant: Uuid,
    order: &Investigated,
) -> Result<HashMap<String, Reputation>, ApiError> {
    let (tenant, now) = (tenant.to_string(), state.now());
    let mut known = HashMap::new();
    for sha1 in order.findings.iter().filter_map(|finding| finding.sha1.as_ref()) {
        if !known.contains_key(sha1) {
            let (allowed, bad) = store::reputation(state, &tenant, sha1, now).await?;
            known.insert(sha1.clone(), Reputation { allowed, bad });
        }
    }
    Ok(known)
}

/// Has files removed that may be, one order for each file and machine, and sees what became of those
/// orders.
async fn remediate(state: &State, investigation: &Investigation) -> Result<(), ApiError> {
    let findings = store::findings(state, investigation.number).await?;
    let waiting: HashSet<(&str, &str)> = findings
        .iter()
        .filter(|found| found.remediation == Remediation::Waiting)
        .filter_map(|found| Some((&*found.machine, found.finding.sha1.as_deref()?)))
        .collect();
    let mut allowed: BTreeMap<(&str, &str), Vec<&Found>> = BTreeMap::new();
    for found in &findings {
        let sha1 = found.finding.sha1.as_deref();
        match (found.remediation, sha1, &found.action) {
            // Another order found a copy that waits for a person, and removing would take that, too.
            (Remediation::Allowed, Some(sha1), _) if waiting.contains(&(&*found.machine, sha1)) => {
                let mut transaction = state.database.begin().await?;
                let change = (Remediation::Allowed, Remediation::Waiting);
                store::remediate(&mut transaction, &found.id, change, None).await?;
                transaction.commit().await?;
            }
            (Remediation::Allowed, Some(sha1), _) => {
                allowed.entry((&found.machine, sha1)).or_default().push(found);
            }
            (Remediation::Ordered, _, Some(action)) => {
                let Some(became) = outcome_of(state, action).await? else { continue };
                let mut transaction = state.database.begin().await?;
                let change = (Remediation::Ordered, became);
                store::remediate(&mut transaction, &found.id, change, None).await?;
                transaction.commit().await?;
            }
            _ => {}
        }
    }
    // A machine takes one such order at a time, so further files of it are for another look.
    let mut begun = None;
    for ((machine, sha1), of_file) in allowed {
        if begun != Some(machine) {
            begun = Some(machine);
            remove(state, investigation, (machine, sha1), &of_file).await?;
        }
    }
    Ok(())
}

async fn outcome_of(state: &State, action: &str) -> Result<Option<Remediation>, ApiError> {
    let standing = machine_actions::standing(state, action).await?;
    Ok(match standing.as_ref().map(|(status, code)| (status.as_str(), *code)) {
        Some(("Pending" | "InProgress", _)) => None,
        Some(("Succeeded", _) | ("Failed", NOT_FOUND)) => Some(Remediation::Done),
        _ => Some(Remediation::Failed),
    })
}

async fn remove(
    state: &State,
    investigation: &Investigation,
    (machine, sha1): (&str, &str),
    of_file: &[&Found],
) -> Result<(), ApiError> {
    // Before the events are searched: the machine may be away for days.
    if store::is_removing(state, machine).await? {
        return Ok(());
    }
    let mut known_paths = whereabouts::paths(state, investigation.tenant, machine, sha1).await?;
    known_paths.extend(of_file.iter().filter_map(|found| found.finding.path.clone()));
    known_paths.sort();
    known_paths.dedup();
    let new = NewAction {
        tenant: investigation.tenant,
        machine: machine.to_owned(),
        machine_name: of_file[0].machine_name.clone(),
        kind: "StopAndQuarantineFile",
        scope: None,
        requestor: REQUESTOR.to_owned(),
        app_id: None,
        comment: format!("Remediation by investigation {}", investigation.number),
        command: Command::StopAndQuarantineFile { sha1: sha1.to_owned(), known_paths },
        related_sha1: Some(sha1.to_owned()),
        external_id: None,
        commands: None,
        investigation: Some(investigation.number.to_string()),
    };
    let mut transaction = state.database.begin().await?;
    let Some(action) = free(machine_actions::insert(&mut transaction, state.now(), &new).await)?
    else {
        return Ok(());
    };
    let action = action.to_string();
    let change = (Remediation::Allowed, Remediation::Ordered);
    let mut all = true;
    for found in of_file {
        all &= store::remediate(&mut transaction, &found.id, change, Some(&action)).await?;
    }
    if all {
        transaction.commit().await?;
        state.waiting.wake(machine);
        state.publish.notify_one();
    }
    Ok(())
}

/// Sets the investigation's state, and that of its alerts; `complete` if all that those name was looked
/// for.
async fn conclude(
    state: &State,
    investigation: &Investigation,
    (alerts, orders, complete): (usize, &[Investigated], bool),
    automation: Automation,
) -> Result<(), ApiError> {
    let number = investigation.number;
    let tasks = store::tasks(state, number).await?;
    let findings = store::findings(state, number).await?;
    let underway = tasks.iter().any(|task| !task.noted)
        || findings
            .iter()
            .any(|found| matches!(found.remediation, Remediation::Allowed | Remediation::Ordered));
    let (name, details) = match underway {
        true => {
            let removals = store::open_removals(state, number).await?;
            (waits_for(orders, &removals, state.now()), None)
        }
        false => {
            let (name, details) = outcome(orders, &findings, complete);
            (name, Some(details))
        }
    };
    let ended = (!underway).then(|| {
        let last = orders.iter().map(|order| order.updated).max();
        last.unwrap_or(state.now())
    });
    if name == investigation.state {
        return Ok(());
    }
    let resolve = automation.resolve_alerts && matches!(name, "Benign" | "SuccessfullyRemediated");
    set(state, investigation, (alerts, name), details.as_deref(), ended, resolve).await
}

async fn set(
    state: &State,
    investigation: &Investigation,
    (alerts, name): (usize, &str),
    details: Option<&str>,
    ended: Option<i64>,
    resolve: bool,
) -> Result<(), ApiError> {
    let (now, number) = (state.now(), investigation.number);
    let mut transaction = alerts::write(state).await?;
    let change = (investigation.state.as_str(), name);
    let was = store::set_state(&mut transaction, number, change, details, ended).await?;
    // An alert that came in between has not been looked at.
    if was && alerts::count_of_investigation(&mut transaction, number).await? == alerts {
        alerts::set_state(&mut transaction, now, number, name, resolve).await?;
        transaction.commit().await?;
        tracing::info!(number, state = name, "investigation");
    }
    Ok(())
}

/// Whether the investigation works, or waits for machines that are away, with its orders to look or to
/// remove something.
fn waits_for(orders: &[Investigated], removals: &[(String, i64)], now: i64) -> &'static str {
    let looks = orders.iter().filter(|order| order.is_open());
    let looks = looks.map(|order| (order.status.as_str(), order.created));
    let removals = removals.iter().map(|(status, created)| (status.as_str(), *created));
    let mut open = looks.chain(removals).peekable();
    let waits = open.peek().is_some()
        && open.all(|(status, created)| status == "Pending" && created < now - PATIENCE);
    if waits { "PendingResource" } else { "Running" }
}

/// Goes on with an investigation that waited for a person.
async fn decide(state: &State, investigation: &Investigation) -> Result<(), ApiError> {
    let number = investigation.number;
    for found in store::findings(state, number).await? {
        let (Remediation::Waiting, Some(sha1)) = (found.remediation, &found.finding.sha1) else {
            continue;
        };
        let removal = store::removal(state, &found.machine, sha1, found.found).await?;
        if let Some(action) = removal {
            let mut transaction = state.database.begin().await?;
            let change = (Remediation::Waiting, Remediation::Done);
            store::remediate(&mut transaction, &found.id, change, Some(&action)).await?;
            transaction.commit().await?;
        }
    }
    let orders = machine_actions::orders_of_investigation(state, &number.to_string()).await?;
    let (alerts, evidence) = alerts::evidence_of_investigation(state, number).await?;
    let wanted = entities::of_evidence(&evidence);
    let complete = entities::is_empty(&entities::minus(&wanted, &investigation.looked));
    let findings = store::findings(state, number).await?;
    let (mut name, details) = outcome(&orders, &findings, complete);
    let now = state.now();
    if name == "PendingApproval" && alerts::are_resolved(state, number).await? {
        name = "TerminatedByUser";
    } else if name == "PendingApproval" {
        let last = orders.iter().map(|order| order.updated).max().unwrap_or(now);
        if last >= now - UNDECIDED {
            return Ok(());
        }
        name = "TerminatedBySystem";
    }
    let settings = service::settings(state, investigation.tenant).await?;
    let resolve =
        service::automation_of(&settings).resolve_alerts && name == "SuccessfullyRemediated";
    set(state, investigation, (alerts, name), Some(&details), Some(now), resolve).await
}

/// State and details of an investigation whose orders have ended; `complete` if they were for all that
/// its alerts name.
fn outcome(orders: &[Investigated], findings: &[Found], complete: bool) -> (&'static str, String) {
    let looked = orders.iter().filter(|order| order.status == "Succeeded").count();
    let mut details = format!("{looked} of {} machines were looked at.", orders.len());
    for order in orders.iter().filter(|order| order.status != "Succeeded") {
        let error = order.error.as_deref().unwrap_or("no reason was given");
        details.push_str(&format!(" {}: {}: {error}.", order.machine_name, order.status));
    }
    // A machine that looked, and says that it left something out.
    let partial = orders.iter().filter(|order| order.status == "Succeeded");
    let partial = partial.filter_map(|order| Some((&order.machine_name, order.error.as_ref()?)));
    let mut all = complete && looked == orders.len();
    for (machine, left_out) in partial {
        all = false;
        details.push_str(&format!(" {machine}: {left_out}."));
    }
    if !complete {
        details.push_str(" The alerts name more than was looked for.");
    }
    for found in findings {
        let finding = &found.finding;
        let verdict = match (&finding.package, found.verdict.as_str()) {
            (Some(package), "NoThreatsFound") => {
                format!("NoThreatsFound, part of the package {package}")
            }
            (_, verdict) => verdict.to_owned(),
        };
        let became = match found.remediation {
            Remediation::None => "",
            Remediation::Waiting => ", waits for approval",
            Remediation::Allowed | Remediation::Ordered => ", is being removed",
            Remediation::Done => ", removed",
            Remediation::Failed => ", could not be removed",
        };
        details.push_str(&format!(
            " {}: {} {} ({}): {verdict}{became}.",
            found.machine_name, finding.kind, finding.place, finding.entity
        ));
    }
    let count = |one| findings.iter().filter(|found| found.remediation == one).count();
    let (done, failed) = (count(Remediation::Done), count(Remediation::Failed));
    let state = match (looked, count(Remediation::Waiting), done, failed) {
        (0, ..) => "Failed",
        (_, 1.., ..) => "PendingApproval",
        (_, _, 0, 1..) => "Failed",
        (_, _, 1.., 1..) => "PartiallyRemediated",
        (_, _, 1.., 0) => {
            if all {
                "SuccessfullyRemediated"
            } else {
                "PartiallyRemediated"
            }
        }
        (_, _, 0, 0) => {
            if all {
                "Benign"
            } else {
                "PartiallyInvestigated"
            }
        }
    };
    (state, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(status: &str, created: i64, error: Option<&str>) -> Investigated {
        Investigated {
            id: String::new(),
            status: status.to_owned(),
            machine: "m".to_owned(),
            machine_name: "m.example".to_owned(),
            created,
            updated: created,
            error: error.map(str::to_owned),
            findings: Vec::new(),
        }
    }

    #[test]
    fn nothing_is_benign_of_which_a_part_was_not_looked_at() {
        let whole = [order("Succeeded", 0, None)];
        assert_eq!(outcome(&whole, &[], true).0, "Benign");
        let (state, details) = outcome(&whole, &[], false);
        assert_eq!(state, "PartiallyInvestigated");
        assert!(details.contains("more than was looked for"), "{details}");
        let cut = [order("Succeeded", 0, None), order("Succeeded", 0, Some("5 were left out"))];
        let (state, details) = outcome(&cut, &[], true);
        assert_eq!(state, "PartiallyInvestigated");
        assert!(details.contains("m.example: 5 were left out."), "{details}");
    }

    #[test]
    fn removals_are_waited_for_like_looks() {
        let (looked, now) = ([order("Succeeded", 0, None)], 2 * PATIENCE);
        let removal = |status: &str, created: i64| [(status.to_owned(), created)];
        assert_eq!(waits_for(&looked, &removal("Pending", 0), now), "PendingResource");
        assert_eq!(waits_for(&looked, &removal("InProgress", 0), now), "Running");
        assert_eq!(waits_for(&looked, &removal("Pending", now), now), "Running");
        assert_eq!(waits_for(&[order("Pending", 0, None)], &[], now), "PendingResource");
        assert_eq!(waits_for(&looked, &[], now), "Running");
    }
}
