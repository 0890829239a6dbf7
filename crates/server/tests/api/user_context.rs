//! Users at the API: scope, role, and both; the administration of the directory over the wire.

use crate::support::{Answer, DEFENDER, World, answer};
use reqwest::Method;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use vigie_contract::operations::{OPERATIONS, Operation};

const PASSWORD: &str = "correct horse battery";

/// A public application with every delegated permission consented, and users by role.
pub struct Context {
    pub world: World,
    tenant: String,
    admin: String,
    app: String,
    pub every: BTreeSet<String>,
}

impl Context {
    async fn start() -> Context {
        Context::of(World::start().await).await
    }

    pub async fn of(world: World) -> Context {
        let admin = world.administration_token().await;
        let tenant = world.first.tenant.to_string();
        let every: BTreeSet<String> = (vigie_identity::PERMISSIONS.iter())
            .filter(|permission| permission.delegated)
            .map(|permission| permission.name.clone())
            .collect();
        let base = format!("/admin/v1/tenants/{tenant}");
        let registration = json!({"allowPublicClient": true, "delegatedPermissions": every});
        let new = json!({"displayName": "users", "registration": registration});
        let made = world.post(&format!("{base}/applications"), &admin, new).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let app = made.body["appId"].as_str().expect("an id").to_owned();
        let context = Context { world, tenant, admin, app, every };
        let path = format!("serviceprincipals/{}", context.app);
        let consent = json!({"delegated": [{"scopes": context.every}]});
        context.set(Method::PATCH, &path, consent).await;
        context.set(Method::PUT, "settings", json!({"allowPasswordGrant": true})).await;
        for (name, role) in [
            ("boss", Some("Global Administrator")),
            ("reader", Some("Security Reader")),
            ("nobody", None),
        ] {
            let upn = format!("{name}@{}", context.world.first.domain);
            let roles: Vec<&str> = role.into_iter().collect();
            let new = json!({"userPrincipalName": upn, "password": PASSWORD, "roles": roles});
            let made = context.world.post(&format!("{base}/users"), &context.admin, new).await;
            assert_eq!(made.status, 201, "{}", made.body);
        }
        context
    }

    /// A request to the administration API below the tenant, which must succeed.
    async fn set(&self, method: Method, path: &str, body: Json) -> Json {
        let path = format!("/admin/v1/tenants/{}/{path}", self.tenant);
        let done = self.world.call(method, &path, &self.admin, Some(body)).await;
        assert!(matches!(done.status, 200 | 201), "{path}: {} {}", done.status, done.body);
        done.body
    }

    /// A user's token with these scopes.
    pub async fn token(&self, user: &str, scopes: &[&str]) -> String {
        let scope: Vec<String> = scopes.iter().map(|s| format!("{DEFENDER}/{s}")).collect();
        let (scope, upn) = (scope.join(" "), format!("{user}@{}", self.world.first.domain));
        let fields = [
            ("grant_type", "password"),
            ("client_id", self.app.as_str()),
            ("username", upn.as_str()),
            ("password", PASSWORD),
            ("scope", scope.as_str()),
        ];
        let path = format!("/{}/oauth2/v2.0/token", self.tenant);
        let answer = self.world.form(&path, &fields).await;
        let token = answer.body["access_token"].as_str();
        token.unwrap_or_else(|| panic!("no token: {}", answer.body)).to_owned()
    }

    async fn call(&self, operation: &Operation, token: &str) -> Answer {
        let method: Method = operation.method.parse().expect("a method");
        self.world.call(method, &path(operation), token, None).await
    }
}

/// A path of the operation with something in place of its parameters.
fn path(operation: &Operation) -> String {
    let mut path = String::new();
    let mut rest = operation.path.split('?').next().unwrap_or_default();
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        path.push('x');
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    path + rest
}

#[tokio::test]
async fn a_user_needs_the_scope_and_the_role() {
    let context = Context::start().await;
    let mut sets: BTreeSet<Vec<String>> = BTreeSet::new();
    for operation in OPERATIONS.iter() {
        sets.insert(operation.delegated_permissions.clone());
    }
    for permissions in sets {
        let (with, without): (Vec<&str>, Vec<&str>) = context
            .every
            .iter()
            .map(String::as_str)
            .partition(|name| permissions.iter().any(|p| p == name));
        let boss_without = context.token("boss", &without).await;
        let mut boss_with = Vec::new();
        for scope in &with {
            boss_with.push(context.token("boss", &[scope]).await);
        }
        let nobody = match with.is_empty() {
            true => None,
            false => Some(context.token("nobody", &with).await),
        };
        let of_set = OPERATIONS.iter().filter(|o| o.delegated_permissions == permissions);
        for operation in of_set {
            let id = &operation.id;
            let refused = context.call(operation, &boss_without).await;
            assert_eq!(refused.status, 403, "{id} without scope: {}", refused.body);
            if let Some(nobody) = &nobody {
                let refused = context.call(operation, nobody).await;
                assert_eq!(refused.status, 403, "{id} without role: {}", refused.body);
                assert_eq!(refused.body["error"]["code"], "Forbidden", "{id}");
            }
            for token in &boss_with {
                let allowed = context.call(operation, token).await;
                let status = allowed.status;
                assert!(!matches!(status, 401 | 403 | 500), "{id}: {status} {}", allowed.body);
            }
        }
    }
    // An application's permission is none of a user's, and the other way round.
    let world = &context.world;
    let reader = context.token("reader", &["Machine.Read", "Machine.Isolate"]).await;
    assert_eq!(world.get("/api/machines", &reader).await.status, 200);
    let isolate = json!({"Comment": "c", "IsolationType": "Full"});
    let refused = world.post("/api/machines/x/isolate", &reader, isolate.clone()).await;
    assert_eq!(refused.status, 403, "a reader changes nothing: {}", refused.body);
    // A role of the tenant's own, with a group.
    let upn = format!("nobody@{}", world.first.domain);
    let group = json!({"displayName": "Tier 1", "members": [upn]});
    context.set(Method::PUT, "groups", group).await;
    let role = json!({"displayName": "Responders", "permissions": ["ActiveRemediationActions"],
        "groups": ["Tier 1"]});
    context.set(Method::PUT, "roles", role).await;
    let token = context.token("nobody", &["Machine.Read", "Machine.Isolate"]).await;
    let refused = world.get("/api/machines", &token).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    let missing = world.post("/api/machines/x/isolate", &token, isolate).await;
    assert_eq!(missing.status, 404, "allowed, but there is no such machine: {}", missing.body);
    // A user that is disabled is refused at once.
    context.set(Method::PATCH, &format!("users/{upn}"), json!({"enabled": false})).await;
    assert_eq!(world.get("/api/machines", &token).await.status, 401);
    context.world.stop().await;
}

// CHECKLIST 82
#[tokio::test]
async fn the_challenge_tells_where_to_sign_in() {
    let world = World::start().await;
    let bare = answer(world.request(Method::GET, "/api/machines")).await;
    assert_eq!(bare.status, 401);
    let told = bare.headers["www-authenticate"].to_str().expect("text");
    let expected = format!("authorization_uri=\"{}/common/oauth2/authorize\"", world.url);
    assert!(told.starts_with("Bearer ") && told.contains(&expected), "{told}");
    assert!(!told.contains("error="), "{told}");
    let wrong = world.get("/api/machines", "nonsense").await;
    let told = wrong.headers["www-authenticate"].to_str().expect("text");
    assert!(told.contains("error=\"invalid_token\""), "{told}");
    let without = world.token_for(&["Alert.Read.All"]).await;
    assert_eq!(world.get("/api/machines", &without).await.status, 403);
    world.stop().await;
}

// CHECKLIST 1
#[tokio::test]
async fn plain_http_gets_nothing() {
    use std::io::{Read as _, Write as _};
    let world = World::start().await;
    let (tenant, app) = (world.first.tenant, world.first.app_id);
    let address = world.server.address();
    let secret = world.first.app_secret.clone();
    let answered = tokio::task::spawn_blocking(move || {
        let body = format!(
            "grant_type=client_credentials&client_id={app}&client_secret={secret}&scope={DEFENDER}/.default"
        );
        let mut connection = std::net::TcpStream::connect(address).expect("connected");
        write!(
            connection,
            "POST /{tenant}/oauth2/v2.0/token HTTP/1.1\r\nHost: x\r\nContent-Type: \
             application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("sent");
        let mut answered = Vec::new();
        let _ = connection.read_to_end(&mut answered);
        String::from_utf8_lossy(&answered).into_owned()
    });
    let answered = answered.await.expect("done");
    for word in ["HTTP/", "access_token", "Location"] {
        assert!(!answered.contains(word), "{answered}");
    }
    world.stop().await;
}

// CHECKLIST 2
#[tokio::test]
async fn further_names_are_in_the_certificate_and_in_answers() {
    let (data, clock) = (tempfile::tempdir().expect("a folder"), Default::default());
    let mut config = crate::support::config(&data, &clock);
    config.also_listen = vec!["127.0.0.1:0".parse().expect("an address")];
    config.names = vec!["login.cloud.example".to_owned(), "api.cloud.example".to_owned()];
    let world = World::start_with(data, clock, config).await.expect("started");
    let [address, other] = world.server.addresses() else { panic!("two addresses") };
    let (address, other) = (*address, *other);
    let roots = reqwest::Certificate::from_pem_bundle(world.ca.as_bytes()).expect("PEM");
    let http = reqwest::Client::builder()
        .tls_certs_only(roots)
        .resolve("login.cloud.example", address)
        .resolve("api.cloud.example", address)
        .build()
        .expect("a client");
    let base = format!("https://login.cloud.example:{}", address.port());
    let tenant = world.first.tenant;
    let path = format!("{base}/{tenant}/v2.0/.well-known/openid-configuration");
    let document = answer(http.get(path)).await;
    assert_eq!(document.body["issuer"], format!("{base}/{tenant}/v2.0"), "{}", document.body);
    let token = world.first_token().await;
    for port in [address.port(), other.port()] {
        let machines = format!("https://127.0.0.1:{port}/api/machines");
        assert_eq!(answer(http.get(machines).bearer_auth(&token)).await.status, 200);
    }
    let machines = format!("https://api.cloud.example:{}/api/machines", address.port());
    assert_eq!(answer(http.get(machines).bearer_auth(token)).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn the_directory_is_administered_over_the_wire() {
    let context = Context::start().await;
    let world = &context.world;
    let get = async |path: &str| {
        let path = format!("/admin/v1/tenants/{}/{path}", context.tenant);
        world.get(&path, &context.admin).await
    };
    // A device group, its list, its end.
    let rule = json!({"property": "tag", "operator": "equals", "value": "plant"});
    let group = json!({"name": "Plant", "rank": 1, "rules": [rule]});
    let made = context.set(Method::PUT, "devicegroups", group).await;
    assert_eq!(made["id"], 1, "{made}");
    assert_eq!(get("devicegroups").await.body["value"][0]["name"], "Plant");
    let path = format!("/admin/v1/tenants/{}/devicegroups/Plant", context.tenant);
    assert_eq!(world.call(Method::DELETE, &path, &context.admin, None).await.status, 204);
    assert_eq!(get("devicegroups").await.body["value"], json!([]));
    // A second factor is shown once.
    let upn = format!("reader@{}", world.first.domain);
    let totp = context.set(Method::POST, &format!("users/{upn}/totp"), json!({})).await;
    let secret = totp["secret"].as_str().expect("a secret").to_owned();
    let user = get(&format!("users/{upn}")).await;
    assert_eq!(user.body["secondFactor"], true);
    assert!(!user.body.to_string().contains(&secret));
    // What cannot be is refused and changes nothing.
    for (method, path, body, status) in [
        (Method::PUT, "settings", json!({"accessTokenSeconds": 1}), 400),
        (Method::PUT, "settings", json!({"colour": "red"}), 400),
        (Method::PUT, "roles", json!({"displayName": "x", "permissions": ["Everything"]}), 400),
        (Method::PATCH, "users/nobody-there@x.example", json!({"enabled": false}), 404),
        (Method::POST, "users/none/totp", json!({}), 404),
        (Method::PATCH, "serviceprincipals/none", json!({}), 404),
    ] {
        let path = format!("/admin/v1/tenants/{}/{path}", context.tenant);
        let refused = world.call(method, &path, &context.admin, Some(body)).await;
        assert_eq!(refused.status, status, "{path}: {}", refused.body);
    }
    assert_eq!(get("settings").await.body["allowPasswordGrant"], true);
    let path = format!("applications/{}/certificates", context.app);
    let wrong = json!({"certificate": "-----BEGIN NONSENSE-----"});
    let path = format!("/admin/v1/tenants/{}/{path}", context.tenant);
    assert_eq!(world.post(&path, &context.admin, wrong).await.status, 400);
    // All of it is in the audit log, with who did it.
    let log = get("audit?action=deviceGroup.set").await;
    assert_eq!(log.body["value"][0]["target"], "Plant", "{}", log.body);
    let actor = world.first.administration_app_id.to_string();
    assert_eq!(log.body["value"][0]["actor"], actor);
    assert_eq!(get("audit?colour=red").await.status, 400);
    context.world.stop().await;
}

#[tokio::test]
async fn a_custom_role_counts_on_the_machines_of_its_device_groups() {
    let context = Context::start().await;
    let world = &context.world;
    let base = format!("/admin/v1/tenants/{}", context.tenant);
    let plant = world.sensor("press.plant.example").await;
    let office = world.sensor("desk.office.example").await;
    let upn = format!("fitter@{}", world.first.domain);
    let new = json!({"userPrincipalName": upn, "password": PASSWORD});
    assert_eq!(world.post(&format!("{base}/users"), &context.admin, new).await.status, 201);
    for (name, members) in [("fitters", vec![upn.as_str()]), ("clerks", Vec::new())] {
        let group = json!({"displayName": name, "members": members});
        context.set(Method::PUT, "groups", group).await;
    }
    let permissions = ["ViewData", "ActiveRemediationActions", "AlertsInvestigation"];
    let role = json!({"displayName": "fitter", "permissions": permissions, "groups": ["fitters"]});
    context.set(Method::PUT, "roles", role).await;
    for (rank, name, user_group, tag) in
        [(1, "Plant", "fitters", "plant"), (2, "Office", "clerks", "office")]
    {
        let rule = json!({"property": "tag", "operator": "equals", "value": tag});
        let group = json!({"name": name, "rank": rank, "rules": [rule], "groups": [user_group]});
        context.set(Method::PUT, "devicegroups", group).await;
    }
    let boss = context.token("boss", &["Machine.ReadWrite", "Machine.Isolate"]).await;
    for (machine, tag) in [(plant.id(), "plant"), (office.id(), "office")] {
        let path = format!("/api/machines/{machine}/tags");
        let tagged = world.post(&path, &boss, json!({"Value": tag, "Action": "Add"})).await;
        assert_eq!(tagged.status, 200, "{}", tagged.body);
    }
    let order = json!({"Comment": "c", "IsolationType": "Full"});
    let isolate = |machine: &str| format!("/api/machines/{machine}/isolate");
    let ordered = world.post(&isolate(office.id()), &boss, order.clone()).await;
    assert_eq!(ordered.status, 201, "{}", ordered.body);
    assert_eq!(ordered.body["requestor"], format!("boss@{}", world.first.domain));
    let foreign = ordered.body["id"].as_str().expect("an id").to_owned();

    let scopes = ["Machine.Read", "Machine.ReadWrite", "Machine.Isolate"];
    let fitter = context.token("fitter", &scopes).await;
    let listed = world.get("/api/machines", &fitter).await.body;
    let listed = listed["value"].as_array().expect("a list");
    let names: Vec<&Json> = listed.iter().map(|machine| &machine["rbacGroupName"]).collect();
    assert_eq!(names, [&json!("Plant")], "{listed:?}");
    assert_eq!(world.get(&format!("/api/machines/{}", office.id()), &fitter).await.status, 404);
    assert_eq!(world.post(&isolate(office.id()), &fitter, order.clone()).await.status, 404);
    assert_eq!(world.get(&format!("/api/machineactions/{foreign}"), &fitter).await.status, 404);
    let cancel = format!("/api/machineactions/{foreign}/cancel");
    let cancelled = world.post(&cancel, &fitter, json!({"Comment": "c"})).await;
    assert_eq!(cancelled.status, 404, "{}", cancelled.body);
    assert_eq!(world.get("/api/machineactions", &fitter).await.body["value"], json!([]));
    let own = world.post(&isolate(plant.id()), &fitter, order).await;
    assert_eq!(own.status, 201, "{}", own.body);
    assert_eq!(own.body["requestor"], upn);
    let cancel = format!("/api/machineactions/{}/cancel", own.body["id"].as_str().expect("an id"));
    let cancelled = world.post(&cancel, &fitter, json!({"Comment": "c"})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    context.world.stop().await;
}
