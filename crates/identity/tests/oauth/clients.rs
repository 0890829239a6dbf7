//! Applications' credentials.

use crate::signer::*;
use crate::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use vigie_contract::administration::*;

/// What a test changes in the claims of an assertion.
type Change<'c> = &'c dyn Fn(&mut Json);

async fn ask(world: &World, app: &str, assertion: &str) -> Answer {
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion),
        ("scope", SCOPE),
    ];
    world.form(&world.v2(), &fields).await
}

// CHECKLIST 23, 24
#[tokio::test]
async fn secrets_are_shown_once_and_several_are_valid() {
    let world = World::start().await;
    let (app, first) = world.confidential(Registration::default()).await;
    let second = world.secret(&app).await;
    // 40 characters of 62: 238 bits.
    assert!(first.len() == 40 && first != second);
    for secret in [&first, &second] {
        for id in [app.clone(), app.to_uppercase()] {
            let fields = [
                ("grant_type", "client_credentials"),
                ("client_id", id.as_str()),
                ("client_secret", secret),
                ("scope", SCOPE),
            ];
            assert_eq!(world.form(&world.v2(), &fields).await.status, 200);
        }
    }
    let id = Uuid::try_parse(&app).expect("an id");
    let shown = world.directory.application(world.tenant, id).await.expect("found");
    let text = serde_json::to_string(&shown).expect("JSON");
    assert!(!text.contains(&first) && !text.contains(&second), "{text}");
    assert_eq!(shown.secrets[0].hint, first[..3]);
    let stored = std::fs::read(world.folder.path().join("state.db-wal")).expect("read");
    let has = |needle: &str| stored.windows(needle.len()).any(|w| w == needle.as_bytes());
    assert!(!has(&first), "the secret is in the database");
    assert!(has(&app));
}

// CHECKLIST 25, 26, 27
#[tokio::test]
async fn secrets_travel_by_post_or_by_basic_but_not_by_both() {
    let world = World::start().await;
    let app = world.application(&[], Registration::default()).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let odd = "a~b.c_d+e&f=g%h/i:j k";
    let new = NewSecret { secret: Some(odd.to_owned()), ..NewSecret::default() };
    world.directory.add_secret("tests", world.tenant, id, &new).await.expect("added");
    let rest = [("grant_type", "client_credentials"), ("scope", SCOPE)];
    let mut post = rest.to_vec();
    post.extend([("client_id", app.as_str()), ("client_secret", odd)]);
    assert_eq!(world.form(&world.v2(), &post).await.status, 200);
    let encoded = encode(&[("x", odd)])[2..].to_owned();
    let upper = app.replace('-', "%2D");
    for (id, secret) in [(app.as_str(), encoded.as_str()), (&upper, &encoded)] {
        let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        let answer = world.form_with(&world.v2(), &rest, &[("authorization", &basic)]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let both = world.form_with(&world.v2(), &post, &[("authorization", &basic)]).await;
        refused("both", &both, 400, 9002313, "invalid_request");
    }
    let basic = format!("Basic {}", STANDARD.encode(format!("{app}:wrong-wrong-wrong")));
    let wrong = world.form_with(&world.v2(), &rest, &[("authorization", &basic)]).await;
    refused("wrong", &wrong, 401, 7000215, "invalid_client");
    assert!(wrong.header("www-authenticate").starts_with("Basic"));
    let broken = world.form_with(&world.v2(), &rest, &[("authorization", "Basic !!")]).await;
    refused("broken", &broken, 400, 9002313, "invalid_request");
    let mut three = post.clone();
    three.extend([("client_assertion", "a.b.c"), ("client_assertion_type", ASSERTION)]);
    refused(
        "secret and assertion",
        &world.form(&world.v2(), &three).await,
        400,
        9002313,
        "invalid_request",
    );
}

/// Go's golang.org/x/oauth2 sends both halves URL-escaped by Basic first, and tries again with the
/// body after a refusal; members are sorted by name.
// CHECKLIST 26, 33
#[tokio::test]
async fn basic_first_and_the_body_next_as_go_sends_them() {
    let world = World::start().await;
    let app = world.application(&[], Registration::default()).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let odd = "a~b.c_d+e&f=g%h/i:j k-ü";
    let new = NewSecret { secret: Some(odd.to_owned()), ..NewSecret::default() };
    world.directory.add_secret("tests", world.tenant, id, &new).await.expect("added");
    // What `url.QueryEscape` makes of it.
    let escaped = "a~b.c_d%2Be%26f%3Dg%25h%2Fi%3Aj+k-%C3%BC";
    let header = |secret: &str| format!("Basic {}", STANDARD.encode(format!("{app}:{secret}")));
    let rest = [("grant_type", "client_credentials"), ("scope", SCOPE)];
    for path in [world.v2(), world.v1()] {
        let (first, wrong) = (header(escaped), header("wrong-wrong-wrong"));
        let answer = world.form_with(&path, &rest, &[("authorization", &first)]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let answer = world.form_with(&path, &rest, &[("authorization", &wrong)]).await;
        refused("by Basic", &answer, 401, 7000215, "invalid_client");
        assert!(answer.header("www-authenticate").starts_with("Basic"));
        let body = format!(
            "client_id={app}&client_secret={escaped}&grant_type=client_credentials&scope={}",
            "https%3A%2F%2Fapi.securitycenter.microsoft.com%2F.default"
        );
        assert_eq!(world.form_raw(&path, &body).await.status, 200);
    }
}

// CHECKLIST 28, 29
#[tokio::test]
async fn assertions_are_verified_with_registered_certificates() {
    let world = World::start().await;
    let signer = Signer::new();
    let app = certified(&world, &signer).await;
    let (sha1, sha256) = (signer.thumbprint(), Sha256::digest(&signer.der));
    for header in [
        json!({"alg": "RS256", "x5t": URL_SAFE_NO_PAD.encode(&sha1)}),
        json!({"alg": "RS256", "x5t": URL_SAFE.encode(&sha1), "x5c": "a text"}),
        json!({"alg": "PS256", "x5t#S256": URL_SAFE_NO_PAD.encode(sha256), "x5c": ["a", "list"]}),
        json!({"alg": "PS256", "x5t#S256": URL_SAFE.encode(sha256)}),
        json!({"alg": "RS256", "kid": URL_SAFE_NO_PAD.encode(&sha1)}),
    ] {
        let assertion = signer.sign(&header, &assertion_claims(&world, &app));
        let answer = ask(&world, &app, &assertion).await;
        assert_eq!(answer.status, 200, "{header}: {}", answer.text);
        assert_eq!(claims(answer.text_of("access_token"))["appidacr"], "2");
    }
    let good = signer.sign(&signer.header(), &assertion_claims(&world, &app));
    let parts: Vec<&str> = good.split('.').collect();
    let stranger = Signer::new();
    let with = |header: Json| {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        format!("{header}.{}.{}", parts[1], parts[2])
    };
    let x5t = URL_SAFE_NO_PAD.encode(&sha1);
    for (name, assertion) in [
        ("none", with(json!({"alg": "none", "x5t": x5t}))),
        ("HMAC", with(json!({"alg": "HS256", "x5t": x5t}))),
        ("another padding", with(json!({"alg": "RS256", "x5t": x5t}))),
        ("no key named", with(json!({"alg": "PS256"}))),
        ("critical", with(json!({"alg": "PS256", "x5t": x5t, "crit": ["b64"]}))),
        ("another key", stranger.sign(&stranger.header(), &assertion_claims(&world, &app))),
        ("another's signature", stranger.sign(&signer.header(), &assertion_claims(&world, &app))),
        ("its own key", {
            let der = STANDARD.encode(&stranger.der);
            let header = json!({"alg": "RS256", "x5t": x5t, "x5c": [der]});
            stranger.sign(&header, &assertion_claims(&world, &app))
        }),
        ("changed", format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode("{}"), parts[2])),
    ] {
        let answer = ask(&world, &app, &assertion).await;
        // A changed assertion may lose its issuer before its signature is looked at.
        let number = if name == "changed" { 700021 } else { 700027 };
        refused(name, &answer, 401, number, "invalid_client");
        assert!(!answer.text.contains(&x5t), "{name}: {}", answer.text);
    }
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app.as_str()),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"),
        ("client_assertion", good.as_str()),
        ("scope", SCOPE),
    ];
    refused("type", &world.form(&world.v2(), &fields).await, 401, 700027, "invalid_client");
}

// CHECKLIST 30, 32
#[tokio::test]
async fn assertions_have_an_audience_a_subject_and_a_time() {
    let world = World::start().await;
    let signer = Signer::new();
    let app = certified(&world, &signer).await;
    let sent = async |change: &dyn Fn(&mut Json)| {
        let mut claims = assertion_claims(&world, &app);
        change(&mut claims);
        ask(&world, &app, &signer.sign(&signer.header(), &claims)).await
    };
    let now = world.clock.now().timestamp();
    let tenant = world.tenant;
    let fine: &[(&str, Change)] = &[
        ("v1", &|c| c["aud"] = format!("{BASE}/{tenant}/oauth2/token").into()),
        ("issuer", &|c| c["aud"] = format!("{BASE}/{tenant}/v2.0").into()),
        ("domain", &|c| c["aud"] = json!([format!("{BASE}/{tenant}/oauth2/v2.0/token")])),
        ("fractions", &|c| {
            c["nbf"] = json!(now as f64 + 0.5);
            c["exp"] = json!(now as f64 + 600.25);
        }),
        ("skew", &|c| c["nbf"] = (now + 290).into()),
        ("just expired", &|c| c["exp"] = (now - 200).into()),
        ("neither nbf nor iat", &|c| {
            c.as_object_mut().expect("claims").retain(|name, _| name != "nbf" && name != "iat");
        }),
    ];
    for (name, change) in fine {
        let answer = sent(change).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
    }
    let refusals: &[(&str, u64, Change)] = &[
        ("another audience", 700027, &|c| c["aud"] = "https://other.example/token".into()),
        ("no audience", 700027, &|c| c["aud"] = Json::Null),
        ("another issuer", 700021, &|c| c["iss"] = Uuid::new_v4().to_string().into()),
        ("another subject", 700021, &|c| c["sub"] = Uuid::new_v4().to_string().into()),
        ("expired", 700024, &|c| c["exp"] = (now - 400).into()),
        ("no end", 700024, &|c| c["exp"] = Json::Null),
        ("an end far away", 700024, &|c| c["exp"] = (now + 90_000).into()),
        ("not yet", 700024, &|c| c["nbf"] = (now + 400).into()),
        ("a beginning that is no date", 700024, &|c| c["nbf"] = "soon".into()),
        ("an end that is no date", 700024, &|c| c["exp"] = "later".into()),
    ];
    for (name, number, change) in refusals {
        refused(name, &sent(change).await, 401, *number, "invalid_client");
    }
    // The assertion alone names the client too.
    let assertion = signer.sign(&signer.header(), &assertion_claims(&world, &app));
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion.as_str()),
        ("scope", SCOPE),
    ];
    assert_eq!(world.form(&world.v2(), &fields).await.status, 200);
}

// CHECKLIST 31
#[tokio::test]
async fn an_assertion_works_again_unless_the_tenant_says_no() {
    let world = World::start().await;
    let signer = Signer::new();
    let app = certified(&world, &signer).await;
    let assertion = signer.sign(&signer.header(), &assertion_claims(&world, &app));
    for _ in 0..2 {
        assert_eq!(ask(&world, &app, &assertion).await.status, 200);
    }
    world.settings(|settings| settings.refuse_repeated_assertions = true).await;
    assert_eq!(ask(&world, &app, &assertion).await.status, 200);
    refused("again", &ask(&world, &app, &assertion).await, 401, 700027, "invalid_client");
}

#[tokio::test]
async fn tokens_of_trusted_issuers_stand_for_assertions() {
    let world = World::start().await;
    let signer = Signer::new();
    let app = world.application(&["Machine.Read.All"], Registration::default()).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let public = rsa_jwk(&signer);
    let new = NewFederatedCredential {
        name: "pipeline".to_owned(),
        issuer: "https://ci.example".to_owned(),
        subject: "repo:vigie:main".to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        keys: Some(json!({"keys": [public]})),
    };
    let added = world.directory.add_federated_credential("tests", world.tenant, id, &new).await;
    added.expect("added");
    let now = world.clock.now().timestamp();
    let good = json!({"iss": new.issuer, "sub": new.subject, "aud": new.audience,
        "iat": now, "exp": now + 300});
    let header = json!({"alg": "RS256", "kid": "ci"});
    let answer = ask(&world, &app, &signer.sign(&header, &good)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for (claim, value) in
        [("sub", "repo:vigie:fork"), ("aud", "other"), ("iss", "https://x.example")]
    {
        let mut wrong = good.clone();
        wrong[claim] = value.into();
        let answer = ask(&world, &app, &signer.sign(&header, &wrong)).await;
        refused(claim, &answer, 401, 700213, "invalid_client");
    }
    let stranger = Signer::new();
    let answer = ask(&world, &app, &stranger.sign(&header, &good)).await;
    refused("another key", &answer, 401, 700027, "invalid_client");
    // An application of this server as the issuer: its keys are known already.
    let (worker, secret) = world.confidential(Registration::default()).await;
    let new = NewFederatedCredential {
        name: "worker".to_owned(),
        issuer: format!("https://sts.windows.net/{}/", world.tenant),
        subject: String::new(),
        audience: DEFENDER.to_owned(),
        keys: None,
    };
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", worker.as_str()),
        ("client_secret", secret.as_str()),
        ("scope", SCOPE),
    ];
    let token = world.form(&world.v2(), &fields).await;
    let token = token.text_of("access_token").to_owned();
    let subject = claims(&token)["sub"].as_str().expect("a subject").to_owned();
    let new = NewFederatedCredential { subject, ..new };
    let added = world.directory.add_federated_credential("tests", world.tenant, id, &new).await;
    added.expect("added");
    let answer = ask(&world, &app, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

// CHECKLIST 33, 34
#[tokio::test]
async fn what_is_wrong_with_a_client_is_told_by_number() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let soon = NewSecret {
        expires: Some(world.clock.now() + TimeDelta::minutes(5)),
        ..NewSecret::default()
    };
    let short = world.directory.add_secret("tests", world.tenant, id, &soon).await.expect("made");
    let ask = async |secret: &str| {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", app.as_str()),
            ("client_secret", secret),
            ("scope", SCOPE),
        ];
        world.form(&world.v2(), &fields).await
    };
    assert_eq!(ask(&short.secret).await.status, 200);
    refused("wrong", &ask("wrong-wrong-wrong").await, 401, 7000215, "invalid_client");
    refused("missing", &ask("").await, 401, 7000216, "invalid_client");
    let refresh = [
        ("grant_type", "password"),
        ("client_id", app.as_str()),
        ("username", "a"),
        ("password", "b"),
        ("scope", SCOPE),
    ];
    refused("missing", &world.form(&world.v2(), &refresh).await, 401, 7000218, "invalid_client");
    world.clock.advance(TimeDelta::minutes(6));
    refused("expired", &ask(&short.secret).await, 401, 7000222, "invalid_client");
    assert_eq!(world.outcomes(&app).await[0], "7000222", "failures are written down");
    let disabled = Registration { enabled: false, ..Registration::default() };
    let set = world.directory.set_registration("tests", world.tenant, id, &disabled).await;
    set.expect("set");
    refused("disabled", &ask(&secret).await, 400, 7000112, "unauthorized_client");
    let public = world.public().await;
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", public.as_str()),
        ("client_secret", "some-secret-of-nobody"),
        ("scope", SCOPE),
    ];
    let answer = world.form(&world.v2(), &fields).await;
    refused("public client", &answer, 401, 700025, "invalid_client");
}

// CHECKLIST 35
#[tokio::test]
async fn a_burst_of_wrong_secrets_is_slowed_down_and_locks_nobody_out() {
    let mut world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let ask = async |world: &World, secret: &str| {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", app.as_str()),
            ("client_secret", secret),
            ("scope", SCOPE),
        ];
        world.form(&world.v2(), &fields).await
    };
    let mut slowed = None;
    for _ in 0..40 {
        let answer = ask(&world, "wrong-wrong-wrong").await;
        if answer.status == 429 {
            slowed = Some(answer);
        }
    }
    let slowed = slowed.expect("slowed down");
    refused("slowed down", &slowed, 429, 90055, "temporarily_unavailable");
    assert!(slowed.header("retry-after").parse::<u64>().expect("seconds") > 0);
    assert_eq!(ask(&world, &secret).await.status, 200, "the right secret works all the time");
    world.address = "192.0.2.99".parse().expect("an address");
    let elsewhere = ask(&world, "wrong-wrong-wrong").await;
    refused("elsewhere", &elsewhere, 401, 7000215, "invalid_client");
}
