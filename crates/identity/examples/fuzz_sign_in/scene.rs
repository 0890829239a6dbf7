//! A directory with one of everything, and the right credentials.

use crate::damage::Random;
use crate::exchange::{Finding, Reply, Sent, check_reply, processor_time};
use crate::signer::{Signer, assertion_claims, certified, rsa_jwk};
use crate::support::*;
use crate::{NATIVE, SLOW, SPA, STUCK, WEB};
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use tower::ServiceExt as _;
use uuid::Uuid;
use vigie_contract::administration::*;
use vigie_database::Database;
use vigie_identity::PeerAddress;

/// A directory with one of everything, and the right credentials.
pub struct Scene {
    pub world: World,
    /// Of a browser in which `mira` is signed in.
    pub cookies: String,
    /// A confidential application with a secret, and that has had users sign in.
    pub web: (String, String),
    pub certified: (String, Signer),
    /// An application that trusts another issuer, and that issuer.
    pub federated: (String, Signer),
    pub public: String,
    /// The application of the redirects.
    pub redirected: String,
    pub refresh: HashSet<String>,
    pub access: String,
    pub stranger: Signer,
}

impl Scene {
    pub async fn new() -> Scene {
        let folder = match tempfile::tempdir_in("/dev/shm") {
            Ok(folder) => folder,
            Err(_) => tempfile::tempdir().expect("a folder"),
        };
        let database = Database::open_file(&folder.path().join("state.db")).await.expect("opened");
        let world = World::on(database, folder).await;
        world.settings(|settings| settings.allow_password_grant = true).await;
        let web = world.confidential(web_registration()).await;
        world.consent(&web.0, &["Machine.Read"]).await;
        let public = world.public().await;
        world.consent(&public, &["Machine.Read"]).await;
        let texts = |list: &[&str]| list.iter().map(|uri| (*uri).to_owned()).collect();
        let registration = Registration {
            redirect_uris: RedirectUris {
                web: texts(WEB),
                spa: texts(SPA),
                public_client: texts(NATIVE),
            },
            allow_implicit_id_token: true,
            ..web_registration()
        };
        let redirected = world.application(&[], registration).await;
        world.consent(&redirected, &["Machine.Read"]).await;
        let signer = Signer::new();
        let certified = (certified(&world, &signer).await, signer);
        let federated = federated(&world).await;
        let code = authorize(&world, &web.0, "mira", &[]).await["code"].clone();
        let answer = world.form(&world.v2(), &redemption(&web.0, &web.1, &code)).await;
        let refresh = HashSet::from([answer.text_of("refresh_token").to_owned()]);
        let access = answer.text_of("access_token").to_owned();
        let mut browser = Browser::new(&world);
        browser.open(&authorize_path(&world, &web.0, &[])).await;
        browser.sign_in("mira").await;
        let cookies: Vec<String> =
            browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let stranger = Signer::new();
        Scene {
            world,
            cookies,
            web,
            certified,
            federated,
            public,
            redirected,
            refresh,
            access,
            stranger,
        }
    }

    /// Sends a request; what every answer must be is checked. `None`: it is no HTTP.
    pub async fn send(&self, random: &mut Random, sent: &Sent) -> Result<Option<Reply>, Finding> {
        let mut request = Request::builder().method(sent.method.clone()).uri(&sent.path);
        if !random.one_in(50) {
            request = request.header("host", "login.tests.example:8443");
        }
        for (name, value) in &sent.headers {
            request = request.header(*name, value.as_slice());
        }
        let Ok(mut request) = request.body(Body::from(sent.body.clone())) else { return Ok(None) };
        // From everywhere, since failures of one address are slowed down.
        let address = IpAddr::V4(Ipv4Addr::from(random.0.u32(..)));
        request.extensions_mut().insert(PeerAddress(address));
        let router = self.world.router.clone();
        let answered = tokio::spawn(async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            let (parts, body) = response.into_parts();
            (parts, body.collect().await.map(|body| body.to_bytes()))
        });
        let began = processor_time();
        let answered = tokio::time::timeout(STUCK, answered).await;
        let (parts, body) = match answered {
            Err(_) => return Err(sent.finding("no answer")),
            Ok(_) if processor_time() - began > SLOW => return Err(sent.finding("slow")),
            Ok(Err(panic)) => return Err(sent.finding(format!("panic: {panic}"))),
            Ok(Ok(answer)) => answer,
        };
        let body = body.map_err(|error| sent.finding(format!("a broken body: {error}")))?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Json::Null);
        let reply = Reply { status: parts.status, headers: parts.headers, text, json };
        check_reply(sent, &reply)?;
        Ok(Some(reply))
    }

    pub fn token_path(&self, random: &mut Random) -> String {
        match random.below(3) {
            0 => self.world.v1(),
            _ => self.world.v2(),
        }
    }

    /// A code for the web application, by the browser that is signed in.
    pub async fn code(&self, random: &mut Random) -> Result<String, Finding> {
        let mut sent = Sent::get(authorize_path(&self.world, &self.web.0, &[]));
        sent.headers.push(("cookie", self.cookies.clone().into_bytes()));
        let reply = self.send(random, &sent).await?;
        let location = reply.map(|reply| reply.header("location").to_owned()).unwrap_or_default();
        let code = fields(&location).remove("code");
        code.ok_or_else(|| sent.finding("no code for a good request"))
    }

    pub fn good_assertion(&self) -> String {
        let (app, signer) = &self.certified;
        signer.sign(&signer.header(), &assertion_claims(&self.world, app))
    }
}

/// An application that trusts an issuer elsewhere, and that issuer.
pub async fn federated(world: &World) -> (String, Signer) {
    let signer = Signer::new();
    let app = world.application(&["Machine.Read.All"], Registration::default()).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let new = NewFederatedCredential {
        name: "pipeline".to_owned(),
        issuer: "https://ci.example".to_owned(),
        subject: "repo:vigie:main".to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        keys: Some(json!({"keys": [rsa_jwk(&signer)]})),
    };
    let added = world.directory.add_federated_credential("tests", world.tenant, id, &new).await;
    added.expect("added");
    (app, signer)
}
