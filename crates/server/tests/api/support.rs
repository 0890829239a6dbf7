//! A server in this process, its first application, and sensors that speak the protocol.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use vigie_contract::clock::Clock;
use vigie_contract::sensor::*;
use vigie_sensor::client::{CallError, Client};
use vigie_server::{FirstStart, Server, ServerConfig, StartError};

pub const DEFENDER: &str = "https://api.securitycenter.microsoft.com";

pub struct World {
    pub server: Server,
    pub first: FirstStart,
    pub clock: Clock,
    pub url: String,
    pub http: reqwest::Client,
    pub ca: String,
    pub data: TempDir,
}

pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Json,
}

pub fn config(data: &TempDir, clock: &Clock) -> ServerConfig {
    ServerConfig {
        data: data.path().to_owned(),
        listen: "127.0.0.1:0".parse().expect("an address"),
        also_listen: Vec::new(),
        names: Vec::new(),
        public_url: None,
        database: None,
        master_key: None,
        quotas: true,
        external: Vec::new(),
        clock: clock.clone(),
    }
}

impl World {
    pub async fn start() -> World {
        let data = tempfile::tempdir().expect("a folder");
        let clock = Clock::default();
        let config = config(&data, &clock);
        World::start_with(data, clock, config).await.expect("started")
    }

    /// A server over PostgreSQL in a schema of the test's own, where the test command has started
    /// one.
    pub async fn on_postgresql(schema: &str) -> Option<World> {
        let Ok(url) = std::env::var("VIGIE_TEST_POSTGRES") else {
            println!("left out: VIGIE_TEST_POSTGRES names no database");
            return None;
        };
        let admin = vigie_database::Database::open_url(&url).await.expect("reached");
        for statement in
            [format!("DROP SCHEMA IF EXISTS {schema} CASCADE"), format!("CREATE SCHEMA {schema}")]
        {
            admin.execute(&statement, &[]).await.expect("a schema");
        }
        admin.close().await;
        let (data, clock) = (tempfile::tempdir().expect("a folder"), Clock::default());
        let mut config = config(&data, &clock);
        config.database = Some(format!("{url}?options=-csearch_path%3D{schema}"));
        Some(World::start_with(data, clock, config).await.expect("started"))
    }

    pub async fn start_with(
        data: TempDir,
        clock: Clock,
        config: ServerConfig,
    ) -> Result<World, StartError> {
        let server = Server::start(config).await?;
        let first = server.first_start().expect("a new folder").clone();
        let url = format!("https://127.0.0.1:{}", server.address().port());
        let ca = std::fs::read_to_string(server.ca_path()).expect("the certificate");
        let roots = reqwest::Certificate::from_pem_bundle(ca.as_bytes()).expect("PEM");
        let http = reqwest::Client::builder()
            .tls_certs_only(roots)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Ok(World { server, first, clock, url, http, ca, data })
    }

    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        answer(self.http.post(format!("{}{path}", self.url)).form(fields)).await
    }

    /// A token by client credentials at the v2 endpoint.
    pub async fn token(&self, tenant: &str, id: &str, secret: &str, resource: &str) -> String {
        let scope = format!("{resource}/.default");
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", id),
            ("client_secret", secret),
            ("scope", scope.as_str()),
        ];
        let answer = self.form(&format!("/{tenant}/oauth2/v2.0/token"), &fields).await;
        let token = answer.body["access_token"].as_str();
        token.unwrap_or_else(|| panic!("no token: {}", answer.body)).to_owned()
    }

    /// A token of the first application.
    pub async fn first_token(&self) -> String {
        let first = &self.first;
        let (tenant, app) = (first.tenant.to_string(), first.app_id.to_string());
        self.token(&tenant, &app, &first.app_secret, DEFENDER).await
    }

    pub async fn administration_token(&self) -> String {
        let first = &self.first;
        let (tenant, app) = (first.tenant.to_string(), first.administration_app_id.to_string());
        let resource = vigie_contract::administration::RESOURCE;
        self.token(&tenant, &app, &first.administration_secret, resource).await
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Json>,
    ) -> Answer {
        let mut request = self.request(method, path).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, token, None).await
    }

    /// Each property that the entities of a list show can be chosen by `$select`.
    pub async fn select_each(&self, list: &str, token: &str) {
        let all = self.get(list, token).await.body;
        let first = all["value"][0].as_object().unwrap_or_else(|| panic!("{list} has a row"));
        for name in first.keys() {
            let chosen = self.get(&format!("{list}?$select={name}"), token).await;
            assert_eq!(chosen.status, 200, "{list} {name}: {}", chosen.body);
            let keys: Vec<&String> =
                chosen.body["value"][0].as_object().expect("an object").keys().collect();
            assert_eq!(keys, [name], "{list}");
        }
    }

    pub async fn post(&self, path: &str, token: &str, body: Json) -> Answer {
        self.call(Method::POST, path, token, Some(body)).await
    }

    pub async fn hunt(&self, token: &str, query: &str) -> Vec<Json> {
        let answer = self.post("/api/advancedqueries/run", token, json!({"Query": query})).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        answer.body["Results"].as_array().expect("rows").clone()
    }

    /// A further application of the first tenant with a secret: its id and the secret.
    pub async fn application(&self, permissions: &[&str]) -> (String, String) {
        self.application_in(&self.first.tenant.to_string(), permissions).await
    }

    pub async fn application_in(&self, tenant: &str, permissions: &[&str]) -> (String, String) {
        let admin = self.administration_token().await;
        let base = format!("/admin/v1/tenants/{tenant}/applications");
        let new = json!({"displayName": "tests", "permissions": permissions});
        let made = self.post(&base, &admin, new).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let id = made.body["appId"].as_str().expect("an id").to_owned();
        let secret = self.post(&format!("{base}/{id}/secrets"), &admin, json!({})).await;
        (id, secret.body["secret"].as_str().expect("a secret").to_owned())
    }

    /// A token with these application permissions.
    pub async fn token_for(&self, permissions: &[&str]) -> String {
        let (id, secret) = self.application(permissions).await;
        self.token(&self.first.tenant.to_string(), &id, &secret, DEFENDER).await
    }

    /// A second tenant with an application: its id, a token and an enrolment key.
    pub async fn second_tenant(&self, permissions: &[&str]) -> (String, String, String) {
        let admin = self.administration_token().await;
        let new = json!({"displayName": "Second", "domains": ["second.example"]});
        let made = self.post("/admin/v1/tenants", &admin, new).await;
        let tenant = made.body["id"].as_str().expect("an id").to_owned();
        let (id, secret) = self.application_in(&tenant, permissions).await;
        let token = self.token(&tenant, &id, &secret, DEFENDER).await;
        let path = format!("/admin/v1/tenants/{tenant}/enrolmentkeys");
        let key = self.post(&path, &admin, json!({})).await;
        (tenant, token, key.body["enrolmentKey"].as_str().expect("a key").to_owned())
    }

    pub async fn sensor(&self, name: &str) -> TestSensor {
        TestSensor::enrol(self, &self.first.enrolment_key, name).await.expect("enrolled")
    }

    pub async fn stop(self) {
        self.server.handle().shutdown().await;
    }
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let response: Response = request.send().await.expect("answered");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Json::String(text));
    Answer { status, headers, body }
}

impl World {
    /// Uploads a library file; further parts of the form as name and value.
    pub async fn upload(
        &self,
        token: &str,
        name: &str,
        content: &[u8],
        parts: &[(&str, &str)],
    ) -> Answer {
        let mut body = Vec::new();
        for (name, value) in parts {
            let head = format!("--b0undary\r\nContent-Disposition: form-data; name=\"{name}\"");
            body.extend(format!("{head}\r\n\r\n{value}\r\n").bytes());
        }
        let head = "--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=";
        body.extend(format!("{head}\"{name}\"\r\n\r\n").bytes());
        body.extend(content);
        body.extend(b"\r\n--b0undary--\r\n");
        let request = self.request(Method::POST, "/api/libraryfiles").bearer_auth(token);
        let content_type = "multipart/form-data; boundary=b0undary";
        answer(request.header("content-type", content_type).body(body)).await
    }
}

/// One machine, simulated at the level of the protocol.
pub struct TestSensor {
    pub client: Client,
    pub enrolled: Enrolled,
    pub token: String,
    key: Ed25519KeyPair,
    sequence: u64,
}

impl TestSensor {
    pub async fn enrol(world: &World, key: &str, name: &str) -> Result<TestSensor, CallError> {
        let client = Client::new(&world.url, &world.ca).expect("a client");
        let pair = Ed25519KeyPair::generate().expect("a key");
        let request = EnrolRequest {
            enrolment_key: key.to_owned(),
            public_key: STANDARD.encode(pair.public_key().as_ref()),
            installation_id: format!("installation of {name}"),
            report: report(name, world.clock.now()),
        };
        let enrolled = client.enrol(&request).await?;
        let mut sensor =
            TestSensor { client, enrolled, token: String::new(), key: pair, sequence: 0 };
        sensor.token = sensor.renew(world).await?;
        Ok(sensor)
    }

    /// A new session's token.
    pub async fn renew(&self, world: &World) -> Result<String, CallError> {
        let seconds = world.clock.now().timestamp();
        let signature = self.key.sign(session_text(self.id(), seconds).as_bytes());
        let request = SessionRequest {
            machine_id: self.id().to_owned(),
            unix_seconds: seconds,
            signature: STANDARD.encode(signature.as_ref()),
        };
        Ok(self.client.session(&request).await?.token)
    }

    pub fn id(&self) -> &str {
        &self.enrolled.machine_id
    }

    /// Sends a batch as the next one.
    pub async fn send(&mut self, tables: Json) -> Acknowledgement {
        self.sequence += 1;
        self.send_as(self.sequence, &tables).await.expect("acknowledged")
    }

    pub async fn send_as(&self, number: u64, tables: &Json) -> Result<Acknowledgement, CallError> {
        let body = json!({ "tables": tables }).to_string();
        let body = zstd::encode_all(body.as_bytes(), 1).expect("compressed");
        self.client.telemetry(&self.token, number, body.into()).await
    }

    /// One process event; its report id.
    pub async fn process(&mut self, time: DateTime<Utc>, file: &str, command: &str) -> i64 {
        let number = self.sequence as i64 + 1;
        let row = json!({
            "Timestamp": time.to_rfc3339(), "ReportId": number, "ActionType": "ProcessCreated",
            "FileName": file, "FolderPath": format!("/usr/bin/{file}"), "ProcessId": 4000 + number,
            "ProcessCommandLine": command, "AccountName": "mira", "AccountDomain": "tests",
        });
        self.send(json!({"DeviceProcessEvents": [row]})).await;
        number
    }

    /// Says how an order goes on.
    pub async fn tell(&self, id: uuid::Uuid, status: OrderStatus) -> Result<(), CallError> {
        self.client.order_result(&self.token, id, &OrderResult::of(status)).await
    }

    /// Waits for the next orders, without checking their signature.
    pub async fn orders(&self) -> Vec<Order> {
        let orders = self.client.orders(&self.token, 10).await.expect("orders");
        let parse = |signed: &SignedOrder| serde_json::from_str(&signed.order).expect("an order");
        orders.orders.iter().map(parse).collect()
    }
}

pub fn report(name: &str, now: DateTime<Utc>) -> MachineReport {
    MachineReport {
        computer_dns_name: name.to_owned(),
        os_platform: "Linux".to_owned(),
        version: Some("12.5".to_owned()),
        os_architecture: Some("64-bit".to_owned()),
        agent_version: "0.1.0".to_owned(),
        ip_addresses: vec![IpAddress {
            ip_address: "192.0.2.17".to_owned(),
            mac_address: Some("0200AABBCC01".to_owned()),
            r#type: Some("Ethernet".to_owned()),
            operational_status: Some("Up".to_owned()),
        }],
        logged_on_users: vec![LogonUser {
            account_name: "mira".to_owned(),
            account_domain: "tests".to_owned(),
            account_sid: Some("1000".to_owned()),
            first_seen: now,
            last_seen: now,
            logon_type: "Interactive".to_owned(),
            is_domain_admin: false,
            is_only_network_user: false,
        }],
        response_allowed: true,
        tags: vec!["office".to_owned()],
        ..MachineReport::default()
    }
}
