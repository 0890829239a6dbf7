//! One simulated sensor: a task with a loop each for reports, telemetry and orders.

use crate::Shared;
use crate::machine::Machine;
use crate::names::Random;
use crate::orders::{self, Way};
use crate::scenario::{Happening, Play};
use crate::system::System;
use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vigie_contract::sensor::*;
use vigie_sensor::client::{CallError, Client, LONGEST_POLL_SECONDS};
use vigie_sensor::identity::Key;
use vigie_sensor::link::{Backoff, Link};
use vigie_sensor::orders::verify;
use vigie_sensor::rows::Row;

const REPORT_EVERY: Duration = Duration::from_secs(300);
/// Events are gathered for this long, so that a thousand machines make few requests.
const GATHER: Duration = Duration::from_secs(1);

/// A poll that brings nothing takes at least this long.
const SHORTEST_TURN: Duration = Duration::from_secs(1);

pub struct SimulatedSensor {
    machine: Machine,
    link: Link,
    shared: Arc<Shared>,
    system: Mutex<System>,
    /// Rows that orders wrote, on their way.
    written: Mutex<Vec<(String, Row)>>,
    /// There are such rows.
    wrote: Notify,
    /// The report changed.
    changed: Notify,
    /// The server offboarded this machine.
    offboarded: CancellationToken,
    /// When the simulated user logged on.
    since: DateTime<Utc>,
    public_key: String,
}

/// A request of the protocol, as it can be repeated.
enum Call {
    Enrol,
    Report,
    Telemetry { sequence: u64, body: bytes::Bytes },
    Orders,
    Result { id: Uuid, result: OrderResult },
}

enum Answer {
    Done,
    /// Batches up to this number are durable.
    Durable(u64),
    Orders(Vec<SignedOrder>),
}

/// What a machine has to tell and at which number of its own.
struct Telemetry {
    plays: Vec<Playing>,
    sequence: u64,
    report_id: i64,
}

struct Playing {
    play: Play,
    begun: Instant,
    coming: VecDeque<Happening>,
}

impl SimulatedSensor {
    pub fn new(machine: Machine, client: Client, shared: Arc<Shared>) -> Result<SimulatedSensor> {
        let key = Key::from_seed(&machine.key_seed)?;
        let public_key = key.public_key();
        let since = shared.config.clock.now();
        let link = Link::new(client, key, shared.config.clock.clone(), None);
        Ok(SimulatedSensor {
            machine,
            link,
            shared,
            system: Mutex::default(),
            written: Mutex::default(),
            wrote: Notify::new(),
            changed: Notify::new(),
            offboarded: CancellationToken::new(),
            since,
            public_key,
        })
    }

    /// Runs until the lab stops, or the machine is offboarded.
    pub async fn run(self) {
        let sensor = Arc::new(self);
        let stop = sensor.shared.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = sensor.offboarded.cancelled() => {}
            () = sensor.live() => {}
        }
    }

    async fn live(self: &Arc<Self>) {
        self.call(Call::Enrol).await;
        tokio::join!(self.report_loop(), self.telemetry_loop(), self.order_loop());
    }

    /// Repeats a call with growing waits until it is answered.
    async fn call(&self, call: Call) -> Answer {
        let mut backoff = Backoff::new(&self.machine.installation_id);
        loop {
            match self.attempt(&call).await {
                Ok(answer) => return answer,
                Err(error) => {
                    let host = &self.machine.host;
                    tracing::debug!(host, %error, "simulated sensor's call failed");
                    self.shared.status.lock().last_error = Some(error.to_string());
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, CallError> {
        // Long polls wait most of the time and are no load.
        let _permit = match call {
            Call::Orders => None,
            _ => self.shared.calls.acquire().await.ok(),
        };
        if matches!(call, Call::Enrol) {
            return self.enrol().await.map(|()| Answer::Done);
        }
        let token = self.link.token().await?;
        let client = &self.link.client;
        let answer = match call {
            Call::Enrol => Ok(Answer::Done),
            Call::Report => client.report(&token, &self.report()).await.map(|()| Answer::Done),
            Call::Telemetry { sequence, body } => {
                let sent = client.telemetry(&token, *sequence, body.clone()).await;
                sent.map(|acknowledged| Answer::Durable(acknowledged.sequence))
            }
            Call::Orders => {
                let received = client.orders(&token, LONGEST_POLL_SECONDS).await;
                received.map(|orders| Answer::Orders(orders.orders))
            }
            Call::Result { id, result } => match client.order_result(&token, *id, result).await {
                // The server has closed this order: nothing more to say.
                Err(CallError::Refused { status: 400 | 404 | 409 | 410, .. }) => Ok(Answer::Done),
                sent => sent.map(|()| Answer::Done),
            },
        };
        // A refused session is replaced at the next attempt.
        if answer.as_ref().is_err_and(CallError::is_session) {
            self.link.forget(&token).await;
        }
        answer
    }

    fn report(&self) -> MachineReport {
        let (isolation, restricted) = {
            let system = self.system.lock();
            (system.isolation.unwrap_or("None"), system.restricted)
        };
        let now = self.shared.config.clock.now();
        let report = self.machine.report(self.since, now, isolation);
        MachineReport { execution_restricted: restricted, ..report }
    }

    async fn enrol(&self) -> Result<(), CallError> {
        let request = EnrolRequest {
            enrolment_key: self.shared.config.enrolment_key.clone(),
            public_key: self.public_key.clone(),
            installation_id: self.machine.installation_id.clone(),
            report: self.report(),
        };
        let enrolled = self.link.client.enrol(&request).await?;
        self.link.set_enrolled(enrolled);
        self.shared.status.lock().enrolled += 1;
        Ok(())
    }

    async fn report_loop(&self) {
        loop {
            self.call(Call::Report).await;
            tokio::select! {
                () = sleep(REPORT_EVERY) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    async fn telemetry_loop(&self) {
        let begun = Instant::now();
        let plays = self.machine.scenarios.iter().map(|scenario| {
            let mut play = Play::new(scenario.clone(), self.shared.config.seed, &self.machine);
            let coming = play.timetable().into();
            Playing { play, begun, coming }
        });
        let mut telemetry = Telemetry { plays: plays.collect(), sequence: 1, report_id: 0 };
        let start = self.machine.start_rows(self.shared.config.clock.now());
        let rows = start.into_iter().map(|(table, row)| (table.to_owned(), row)).collect();
        self.send(&mut telemetry, rows).await;
        let speed = self.shared.config.speed;
        loop {
            let next = telemetry.next_at(speed);
            tokio::select! {
                () = sleep_until(next.unwrap_or_else(Instant::now).max(Instant::now() + GATHER)),
                    if next.is_some() => {}
                () = self.wrote.notified() => {}
            }
            let due = telemetry.due(&self.machine, speed, self.shared.config.clock.now());
            let mut rows: Vec<(String, Row)> = {
                let mut system = self.system.lock();
                due.into_iter().filter_map(|(table, row)| system.pass(&table, row)).collect()
            };
            rows.append(&mut self.written.lock());
            self.send(&mut telemetry, rows).await;
        }
    }

    async fn send(&self, telemetry: &mut Telemetry, rows: Vec<(String, Row)>) {
        let events = rows.len() as u64;
        if events == 0 {
            return;
        }
        let mut tables: BTreeMap<String, Vec<Box<RawValue>>> = BTreeMap::new();
        for (table, mut row) in rows {
            telemetry.report_id += 1;
            row.number("ReportId", telemetry.report_id);
            let row = serde_json::value::to_raw_value(&row.0).expect("a map of values is JSON");
            tables.entry(table).or_default().push(row);
        }
        let body = match vigie_sensor::encode(&TelemetryBatch { tables }) {
            Ok(body) => bytes::Bytes::from(body),
            Err(error) => {
                self.shared.status.lock().last_error = Some(format!("{error:#}"));
                return;
            }
        };
        loop {
            let sequence = telemetry.sequence;
            let call = Call::Telemetry { sequence, body: body.clone() };
            let Answer::Durable(durable) = self.call(call).await else { return };
            telemetry.sequence = durable.max(sequence) + 1;
            if durable <= sequence {
                break;
            }
            // A lab of the same seed ran before and the server took this batch for one of its.
        }
        self.shared.status.lock().events_sent += events;
    }

    async fn order_loop(self: &Arc<Self>) {
        let mut running: HashMap<Uuid, CancellationToken> = HashMap::new();
        // Dropped with this loop, which ends its orders.
        let mut orders = JoinSet::new();
        loop {
            let asked = Instant::now();
            let Answer::Orders(received) = self.call(Call::Orders).await else { continue };
            let mut new = false;
            for signed in received {
                let Some(enrolled) = self.link.enrolled() else { continue };
                let order = match verify(&signed, &enrolled, self.shared.config.clock.now()) {
                    Ok(order) => order,
                    Err(reason) => {
                        tracing::error!(%reason, "simulated sensor refused an order");
                        continue;
                    }
                };
                if let Command::Cancel { action_id } = order.command {
                    running.get(&action_id).inspect(|stop| stop.cancel());
                    continue;
                }
                if !running.contains_key(&order.id) && self.claim(order.id).await {
                    new = true;
                    let stop = CancellationToken::new();
                    running.insert(order.id, stop.clone());
                    let sensor = self.clone();
                    orders.spawn(async move { sensor.carry_out(order, stop).await });
                }
            }
            while orders.try_join_next().is_some() {}
            if !new && asked.elapsed() < SHORTEST_TURN {
                // A server that stops answers at once.
                sleep(SHORTEST_TURN).await;
            }
        }
    }

    /// Whether the server still wants the order, once it was told that it begins.
    async fn claim(&self, id: Uuid) -> bool {
        let outcome = async {
            let token = self.link.token().await?;
            let begun = OrderResult::of(OrderStatus::InProgress);
            self.link.client.order_result(&token, id, &begun).await
        };
        outcome.await.is_ok()
    }

    async fn carry_out(&self, order: Order, stop: CancellationToken) {
        let mut random = Random::new(self.shared.config.seed, self.machine.index, "orders");
        let isolated = || self.system.lock().isolation.is_some();
        let before = isolated();
        let result = orders::carry_out(self, &order, &mut random, &stop).await;
        {
            let mut status = self.shared.status.lock();
            status.orders_carried_out += 1;
            match (before, isolated()) {
                (false, true) => status.isolated += 1,
                (true, false) => status.isolated -= 1,
                _ => {}
            }
        }
        let offboarded = matches!(order.command, Command::Offboard {})
            && result.status == OrderStatus::Succeeded;
        self.call(Call::Result { id: order.id, result }).await;
        self.changed.notify_one();
        if offboarded {
            self.offboarded.cancel();
        }
    }
}

impl Way for SimulatedSensor {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn now(&self) -> DateTime<Utc> {
        self.shared.config.clock.now()
    }

    fn system<T>(&self, act: impl FnOnce(&mut System) -> T) -> T {
        act(&mut self.system.lock())
    }

    fn event(&self, row: Row) {
        self.written.lock().push(("DeviceEvents".to_owned(), row));
        self.wrote.notify_one();
    }

    async fn download(&self, order: &Order, file: &FileReference) -> Result<Vec<u8>> {
        let token = self.link.token().await?;
        let bytes = self.link.client.order_file(&token, order.id, &file.sha256).await?;
        let right = vigie_sensor::identity::hex(&Sha256::digest(&bytes)) == file.sha256;
        ensure!(right, "the library file {} is not the one that was ordered", file.name);
        Ok(bytes.into())
    }

    async fn upload(
        &self,
        order: &Order,
        position: usize,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let token = self.link.token().await?;
        let upload = (order.id, position);
        let sha256 = vigie_sensor::identity::hex(&Sha256::digest(&bytes));
        for (number, piece) in bytes.chunks(UPLOAD_PIECE_BYTES).enumerate() {
            let offset = (number * UPLOAD_PIECE_BYTES) as u64;
            let piece = piece.to_vec().into();
            self.link.client.upload_piece(&token, upload, offset, piece).await?;
        }
        let end = UploadEnd { name: name.to_owned(), size: bytes.len() as u64, sha256 };
        Ok(self.link.client.upload_end(&token, upload, &end).await?)
    }

    async fn progress(&self, order: &Order, result: OrderResult) {
        if let Ok(token) = self.link.token().await {
            // The next step or the result tells the same and more.
            let _ = self.link.client.order_result(&token, order.id, &result).await;
        }
    }
}

impl Telemetry {
    /// When the next event is to happen; `None` when every scenario is at its end.
    fn next_at(&self, speed: f64) -> Option<Instant> {
        let next = self.plays.iter().filter_map(|playing| {
            let happening = playing.coming.front()?;
            Some(playing.begun + Duration::from_secs_f64(happening.at / speed))
        });
        next.min()
    }

    /// The rows of all that has happened by now; scenarios that repeat begin again.
    fn due(&mut self, machine: &Machine, speed: f64, now: DateTime<Utc>) -> Vec<(String, Row)> {
        let mut rows = Vec::new();
        for playing in &mut self.plays {
            let passed = playing.begun.elapsed().as_secs_f64() * speed;
            while playing.coming.front().is_some_and(|happening| happening.at <= passed) {
                let happening = playing.coming.pop_front().expect("there is a front");
                rows.push(playing.play.row(happening.step, machine, now));
            }
            if let (true, Some(repeat)) = (playing.coming.is_empty(), playing.play.repeat()) {
                playing.begun += Duration::from_secs_f64(repeat / speed);
                playing.coming = playing.play.timetable().into();
            }
        }
        rows
    }
}
