//! A server that speaks the sensor protocol from memory, over TLS with a CA of its own: what the
//! tests of sensor and lab talk to, so that they need no database and no lake.

#![allow(dead_code, reason = "every test file uses a part of it")]

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{TimeDelta, Utc};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;
use vigie_contract::sensor::*;

pub const ENROLMENT_KEY: &str = "test-enrolment-key";

/// An order that was not answered is delivered again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// What the server knows of one machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub public_key: String,
    pub report: MachineReport,
    pub reports: usize,
    pub sequence: u64,
    /// Rows by table, in the order of arrival.
    pub rows: Vec<(String, Value)>,
    pub results: Vec<(Uuid, OrderResult)>,
    /// Open orders with the time of their last delivery.
    pub orders: Vec<(SignedOrder, Option<Instant>)>,
    /// It was ordered to leave.
    pub leaving: bool,
}

/// What a sensor sent for an order.
#[derive(Clone, Debug, Default)]
pub struct Upload {
    pub bytes: Vec<u8>,
    /// Set once the sensor said that this is all of it.
    pub end: Option<UploadEnd>,
}

#[derive(Default)]
pub struct Memory {
    pub machines: BTreeMap<String, Machine>,
    /// Answer everything with 503.
    pub broken: bool,
    /// Batches that were stored already and sent again.
    pub repeated: usize,
    /// Library files by their SHA-256.
    pub files: BTreeMap<String, Vec<u8>>,
    /// By order and number.
    pub uploads: BTreeMap<(Uuid, usize), Upload>,
    /// Uploads are refused with 503 once they have this many bytes.
    pub uploads_break_at: Option<usize>,
    /// What sensors did not take.
    pub refusals: Vec<Refusal>,
    /// Orders that are over on this side.
    pub over: std::collections::BTreeSet<Uuid>,
}

/// Certificates of a test server: one CA, one certificate for these names and addresses.
pub struct Certificates {
    pub ca_pem: String,
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Certificates {
    pub fn new(names: &[&str]) -> Certificates {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca = parameters.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(parameters, ca_key);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(names).unwrap();
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        Certificates {
            ca_pem: ca.pem(),
            chain: vec![certificate.der().clone()],
            key: key.serialize_der(),
        }
    }

    fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }
}

pub struct ProtocolServer {
    pub address: SocketAddr,
    pub ca_pem: String,
    pub memory: Arc<Mutex<Memory>>,
    changes: watch::Sender<u64>,
    order_key: Arc<Ed25519KeyPair>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ProtocolServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Handler {
    memory: Arc<Mutex<Memory>>,
    changes: watch::Sender<u64>,
    order_key: Arc<Ed25519KeyPair>,
}

impl ProtocolServer {
    pub async fn start() -> ProtocolServer {
        let certificates = Certificates::new(&["localhost", "127.0.0.1"]);
        let address = "127.0.0.1:0".parse().unwrap();
        ProtocolServer::start_at(address, &certificates, Arc::default()).await
    }

    /// Starts with what an earlier server knew.
    pub async fn start_at(
        address: SocketAddr,
        certificates: &Certificates,
        memory: Arc<Mutex<Memory>>,
    ) -> ProtocolServer {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let changes = watch::Sender::new(0);
        let order_key = Arc::new(Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap());
        let handler = Handler {
            memory: memory.clone(),
            changes: changes.clone(),
            order_key: order_key.clone(),
        };
        let task = tokio::spawn(accept(listener, certificates.acceptor(), handler));
        let ca_pem = certificates.ca_pem.clone();
        ProtocolServer { address, ca_pem, memory, changes, order_key, task }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Waits until something holds of what the server knows, for at most 20 seconds.
    pub async fn until<T>(&self, what: &str, holds: impl Fn(&Memory) -> Option<T>) -> T {
        let mut changed = self.changes.subscribe();
        let wait = async {
            loop {
                if let Some(found) = holds(&self.memory.lock().unwrap()) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}"),
        }
    }

    /// Waits for a row of a table that fits.
    pub async fn row(&self, table: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.until(table, |memory| {
            let rows = memory.machines.values().flat_map(|machine| &machine.rows);
            rows.filter(|(of, _)| of == table).map(|(_, row)| row).find(|row| fits(row)).cloned()
        })
        .await
    }

    pub async fn machine_id(&self) -> String {
        self.until("a machine", |memory| memory.machines.keys().next().cloned()).await
    }

    /// Gives an order to a machine and returns its id.
    pub fn order(&self, machine_id: &str, command: Command) -> Uuid {
        let now = Utc::now();
        let order = Order {
            id: Uuid::new_v4(),
            machine_id: machine_id.to_owned(),
            issued_at: now,
            expires_at: now + TimeDelta::days(3),
            requestor: "tester".to_owned(),
            command,
        };
        let text = serde_json::to_string(&order).unwrap();
        let signature = BASE64.encode(self.order_key.sign(text.as_bytes()).as_ref());
        self.queue(machine_id, SignedOrder { order: text, signature });
        order.id
    }

    /// Puts a file into the library.
    pub fn library(&self, name: &str, bytes: &[u8]) -> FileReference {
        let sha256 = vigie_sensor::identity::hex(&sha2::Sha256::digest(bytes));
        self.memory.lock().unwrap().files.insert(sha256.clone(), bytes.to_vec());
        FileReference { name: name.to_owned(), sha256, size: bytes.len() as u64 }
    }

    /// An upload that arrived whole, with its name.
    pub fn upload(&self, order: Uuid, number: usize) -> Option<(String, Vec<u8>)> {
        let memory = self.memory.lock().unwrap();
        let upload = memory.uploads.get(&(order, number))?;
        Some((upload.end.as_ref()?.name.clone(), upload.bytes.clone()))
    }

    /// The states that a sensor gave an order, in order.
    pub fn states(&self, id: Uuid) -> Vec<OrderStatus> {
        let memory = self.memory.lock().unwrap();
        let results = memory.machines.values().flat_map(|machine| &machine.results);
        results.filter(|(of, _)| *of == id).map(|(_, result)| result.status).collect()
    }

    /// Signs a text as an order of this server.
    pub fn sign(&self, text: &str) -> SignedOrder {
        let signature = BASE64.encode(self.order_key.sign(text.as_bytes()).as_ref());
        SignedOrder { order: text.to_owned(), signature }
    }

    /// Queues an order as it is, true or not.
    pub fn queue(&self, machine_id: &str, order: SignedOrder) {
        let mut memory = self.memory.lock().unwrap();
        memory.machines.get_mut(machine_id).unwrap().orders.push((order, None));
        drop(memory);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Waits for the final result of an order.
    pub async fn result(&self, id: Uuid) -> OrderResult {
        self.until("an order's result", |memory| {
            let results = memory.machines.values().flat_map(|machine| &machine.results);
            let mut of = results.filter(|(of, _)| *of == id).map(|(_, result)| result);
            of.find(|result| result.status != OrderStatus::InProgress).cloned()
        })
        .await
    }
}

async fn accept(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, handler: Handler) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let handler = handler.clone();
                async move { Ok::<_, std::convert::Infallible>(handler.answer(request).await) }
            });
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Answer = Result<Value, (u16, &'static str)>;

impl Handler {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Some((_, sha256)) = request.uri().path().split_once("/files/") {
            let bytes = self.memory.lock().unwrap().files.get(sha256).cloned();
            let status = if bytes.is_some() { 200 } else { 404 };
            let body = Full::new(Bytes::from(bytes.unwrap_or_default()));
            return Response::builder().status(status).body(body).unwrap();
        }
        let answer = self.route(request).await;
        self.changes.send_modify(|count| *count += 1);
        let (status, body) = match answer {
            Ok(Value::Null) => (204, Value::Null),
            Ok(body) => (200, body),
            Err((status, code)) => (status, json!({ "error": { "code": code, "message": code } })),
        };
        let bytes = if status == 204 { Bytes::new() } else { Bytes::from(body.to_string()) };
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Full::new(bytes))
            .unwrap()
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        if self.memory.lock().unwrap().broken {
            return Err((503, "Unavailable"));
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| (400, "Body"))?.to_bytes();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let number = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name)?.1.parse::<u64>().ok()
        };
        let token = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer token-"));
        let path = path.strip_prefix("/sensor/v1/").ok_or((404, "Path"))?.to_owned();
        match (head.method, path.as_str()) {
            (Method::POST, "enrol") => return self.enrol(&body),
            (Method::POST, "session") => return self.session(&body),
            _ => {}
        }
        let token = token.ok_or((401, "Unauthorized"))?.to_owned();
        if !self.memory.lock().unwrap().machines.contains_key(&token) {
            return Err((401, "Unauthorized"));
        }
        let segments: Vec<&str> = path.split('/').collect();
        if let ["orders", "refused"] = segments.as_slice() {
            let refusal = serde_json::from_slice(&body).map_err(|_| (400, "Refusal"))?;
            self.memory.lock().unwrap().refusals.push(refusal);
            return Ok(Value::Null);
        }
        if let ["orders", id, rest @ ..] = segments.as_slice() {
            let id: Uuid = id.parse().map_err(|_| (404, "Order"))?;
            return self.order(&token, id, rest, number("offset"), &body);
        }
        match path.as_str() {
            "report" => {
                let report = serde_json::from_slice(&body).map_err(|_| (400, "Report"))?;
                self.with(&token, |machine| {
                    machine.report = report;
                    machine.reports += 1;
                })
            }
            "telemetry" => self.telemetry(&token, number("sequence").unwrap(), &body),
            "orders" => Ok(self.orders(&token, number("wait").unwrap()).await),
            _ => Err((404, "Path")),
        }
    }

    fn order(
        &self,
        token: &str,
        id: Uuid,
        path: &[&str],
        offset: Option<u64>,
        body: &[u8],
    ) -> Answer {
        let place = |number: &str| Ok((id, number.parse().map_err(|_| (400, "Number"))?));
        match path {
            ["result"] => {
                let result: OrderResult =
                    serde_json::from_slice(body).map_err(|_| (400, "Result"))?;
                let over = self.memory.lock().unwrap().over.contains(&id);
                if over && result.status == OrderStatus::InProgress {
                    return Err((409, "OrderEnded"));
                }
                self.with(token, |machine| {
                    let is_of = |order: &SignedOrder| order.order.contains(&id.to_string());
                    let offboards = |order: &SignedOrder| order.order.contains("Offboard");
                    machine.leaving |= machine.orders.iter().any(|(o, _)| is_of(o) && offboards(o));
                    machine.orders.retain(|(order, _)| !is_of(order));
                    if machine.leaving && result.status == OrderStatus::Succeeded {
                        // Its key is taken no more, as by the real server.
                        machine.public_key.clear();
                    }
                    machine.results.push((id, result));
                })
            }
            ["uploads", number] => {
                let mut memory = self.memory.lock().unwrap();
                let most = memory.uploads_break_at.unwrap_or(usize::MAX);
                let upload = memory.uploads.entry(place(number)?).or_default();
                if upload.bytes.len() >= most {
                    return Err((503, "Unavailable"));
                }
                if offset == Some(upload.bytes.len() as u64) {
                    upload.bytes.extend(body);
                }
                Ok(json!(UploadState { received: upload.bytes.len() as u64 }))
            }
            ["uploads", number, "end"] => {
                let end: UploadEnd = serde_json::from_slice(body).map_err(|_| (400, "End"))?;
                let mut memory = self.memory.lock().unwrap();
                let upload = memory.uploads.entry(place(number)?).or_default();
                let sha256 = vigie_sensor::identity::hex(&sha2::Sha256::digest(&upload.bytes));
                if (end.size, &end.sha256) != (upload.bytes.len() as u64, &sha256) {
                    return Err((422, "UploadDiffers"));
                }
                upload.end = Some(end);
                Ok(Value::Null)
            }
            _ => Err((404, "Path")),
        }
    }

    fn with(&self, id: &str, change: impl FnOnce(&mut Machine)) -> Answer {
        change(self.memory.lock().unwrap().machines.get_mut(id).unwrap());
        Ok(Value::Null)
    }

    fn enrol(&self, body: &[u8]) -> Answer {
        let request: EnrolRequest = serde_json::from_slice(body).map_err(|_| (400, "Enrol"))?;
        if request.enrolment_key != ENROLMENT_KEY {
            return Err((403, "EnrolmentKey"));
        }
        let digest = Sha1::digest(format!("machine {}", request.installation_id));
        let machine_id = vigie_sensor::identity::hex(&digest);
        let mut memory = self.memory.lock().unwrap();
        let machine = memory.machines.entry(machine_id.clone()).or_default();
        machine.public_key = request.public_key;
        machine.leaving = false;
        machine.report = request.report;
        let order_key = BASE64.encode(self.order_key.public_key().as_ref());
        Ok(json!(Enrolled { tenant_id: Uuid::nil(), machine_id, order_key }))
    }

    fn session(&self, body: &[u8]) -> Answer {
        let request: SessionRequest = serde_json::from_slice(body).map_err(|_| (400, "Session"))?;
        let memory = self.memory.lock().unwrap();
        let machine = memory.machines.get(&request.machine_id).ok_or((401, "Unknown"))?;
        let text = session_text(&request.machine_id, request.unix_seconds);
        let key = BASE64.decode(&machine.public_key).map_err(|_| (401, "Key"))?;
        let signature = BASE64.decode(&request.signature).map_err(|_| (401, "Signature"))?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| (401, "Signature"))?;
        let token = format!("token-{}", request.machine_id);
        Ok(json!(Session { token, expires_in_seconds: 3600 }))
    }

    fn telemetry(&self, id: &str, sequence: u64, body: &[u8]) -> Answer {
        let body = zstd::decode_all(body).map_err(|_| (400, "Encoding"))?;
        let batch: BTreeMap<String, BTreeMap<String, Vec<Value>>> =
            serde_json::from_slice(&body).map_err(|_| (400, "Batch"))?;
        let mut memory = self.memory.lock().unwrap();
        let machine = memory.machines.get_mut(id).unwrap();
        if sequence <= machine.sequence {
            let sequence = machine.sequence;
            memory.repeated += 1;
            return Ok(json!(Acknowledgement { sequence }));
        }
        for (table, rows) in &batch["tables"] {
            let columns = &vigie_contract::tables::table(table).ok_or((400, "Table"))?.columns;
            for row in rows {
                let known = |name: &String| columns.iter().any(|column| column.name == *name);
                if !row.as_object().is_some_and(|row| row.keys().all(known)) {
                    return Err((400, "Column"));
                }
                machine.rows.push((table.clone(), row.clone()));
            }
        }
        machine.sequence = sequence;
        Ok(json!(Acknowledgement { sequence }))
    }

    /// An order is delivered until it is answered: the poll that carried it may have been cut.
    fn take_orders(&self, id: &str) -> Vec<SignedOrder> {
        let mut memory = self.memory.lock().unwrap();
        let orders = memory.machines.get_mut(id).unwrap().orders.iter_mut();
        let due = orders.filter(|(_, at)| at.is_none_or(|at: Instant| at.elapsed() >= AGAIN));
        due.map(|(order, at)| {
            *at = Some(Instant::now());
            order.clone()
        })
        .collect()
    }

    async fn orders(&self, id: &str, wait: u64) -> Value {
        let mut changed = self.changes.subscribe();
        let taken = async {
            loop {
                let orders = self.take_orders(id);
                if !orders.is_empty() {
                    return orders;
                }
                let _ = tokio::time::timeout(AGAIN, changed.changed()).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(wait), taken).await;
        json!(Orders { orders: waited.unwrap_or_default() })
    }
}
