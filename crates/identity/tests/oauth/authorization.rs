//! The authorization endpoint and codes.

use crate::support::*;
use chrono::TimeDelta;
use http::Method;
use vigie_contract::administration::*;

/// A confidential web application whose users have all consented: its id and secret.
async fn web(world: &World) -> (String, String) {
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Machine.Read"]).await;
    let secret = world.secret(&app).await;
    (app, secret)
}

async fn shown(world: &World, app: &str, more: &[(&str, &str)]) -> Answer {
    world.get(&authorize_path(world, app, more)).await
}

// CHECKLIST 45, 47
#[tokio::test]
async fn only_registered_redirects_are_followed() {
    let world = World::start().await;
    let (app, _) = web(&world).await;
    for uri in [
        "",
        "https://client.example/other",
        "https://client.example/CB",
        "https://client.example/cb/",
        "https://client.example/cb?x=1",
        "https://client.example.evil.example/cb",
        "https://client.example@evil.example/cb",
        "javascript:alert(1)",
    ] {
        let page =
            shown(&world, &app, &[("redirect_uri", uri), ("response_type", "nonsense")]).await;
        assert_eq!(page.status, 400, "{uri}");
        assert!(page.text.contains("AADSTS50011"), "{uri}: {}", page.text);
        assert!(page.header("location").is_empty(), "{uri}");
    }
    let page = shown(&world, "7f2f7a52-98b8-4d1f-8d4b-54d6b3a8c9aa", &[]).await;
    assert!(page.text.contains("AADSTS700016") && page.header("location").is_empty());
    // Client and address are good: errors go back, with the state.
    let back = shown(&world, &app, &[("response_type", "nonsense")]).await.location();
    assert!(back.starts_with("https://client.example/cb?"), "{back}");
    let back = fields(&back);
    assert_eq!(back["error"], "unsupported_response_type");
    assert!(back["error_description"].starts_with("AADSTS70005: "));
    assert_eq!(back["state"], "s t&a+te");
    // The older endpoint knows the only address there is.
    let path = format!("/{}/oauth2/authorize?client_id={app}&response_type=code", world.tenant);
    assert_eq!(world.get(&path).await.status, 200);
}

// CHECKLIST 46
#[tokio::test]
async fn loopback_redirects_match_with_any_port() {
    let world = World::start().await;
    let app = world.public().await;
    world.consent(&app, &["Machine.Read"]).await;
    for uri in ["http://localhost:51004", "http://localhost:51004/", "http://localhost"] {
        let back = authorize(&world, &app, "mira", &[("redirect_uri", uri)]).await;
        assert!(back.contains_key("code"), "{uri}: {back:?}");
    }
    for uri in ["http://localhost:51004/x", "http://127.0.0.1:51004", "https://localhost:51004"] {
        let page = shown(&world, &app, &[("redirect_uri", uri)]).await;
        assert!(page.text.contains("AADSTS50011"), "{uri}");
    }
    // What can be registered at all.
    for (uri, fine) in [
        ("https://a.example/cb", true),
        ("http://localhost/cb", true),
        ("http://a.example/cb", false),
        ("https://a.example/*", false),
        ("https://a.example/#x", false),
        ("javascript:alert(1)", false),
        ("nonsense", false),
    ] {
        let mut registration = Registration::default();
        registration.redirect_uris.web = vec![uri.to_owned()];
        let new = NewApplication {
            display_name: "x".to_owned(),
            registration,
            ..NewApplication::default()
        };
        let made = world.directory.create_application("tests", world.tenant, &new).await;
        assert_eq!(made.is_ok(), fine, "{uri}");
    }
}

// CHECKLIST 48
#[tokio::test]
async fn implicit_answers_are_refused_unless_switched_on() {
    let world = World::start().await;
    let (app, _) = web(&world).await;
    for (kind, number) in [("token", "AADSTS700051"), ("id_token", "AADSTS700054")] {
        let more = [("response_type", kind), ("nonce", "n")];
        let back = fields(&shown(&world, &app, &more).await.location());
        assert_eq!(back["error"], "unsupported_response_type", "{back:?}");
        assert!(back["error_description"].starts_with(number), "{back:?}");
    }
    let mut registration = web_registration();
    registration.allow_implicit_id_token = true;
    registration.allow_implicit_access_token = true;
    let app = world.application(&[], registration).await;
    world.consent(&app, &["Machine.Read"]).await;
    let more = [("response_type", "code id_token token"), ("nonce", "n0")];
    let back = authorize(&world, &app, "mira", &more).await;
    let id = claims(&back["id_token"]);
    assert_eq!(id["nonce"], "n0");
    for hash in ["c_hash", "at_hash"] {
        assert_eq!(id[hash].as_str().expect("a hash").len(), 22, "{id}");
    }
    assert_eq!(claims(&back["access_token"])["scp"], "Machine.Read");
    // Tokens never travel in a query.
    let more = [("response_type", "id_token"), ("nonce", "n"), ("response_mode", "query")];
    let back = fields(&shown(&world, &app, &more).await.location());
    assert!(back["error_description"].starts_with("AADSTS70007"), "{back:?}");
}

// CHECKLIST 49, 50
#[tokio::test]
async fn answers_come_back_by_query_fragment_and_form() {
    let world = World::start().await;
    let (app, _) = web(&world).await;
    let state = format!("{}\"<>&+%20 ü€\u{1F511}", "x".repeat(2000));
    for (mode, separator) in [("query", '?'), ("fragment", '#')] {
        let mut browser = Browser::new(&world);
        let more = [("response_mode", mode), ("state", &state)];
        browser.open(&authorize_path(&world, &app, &more)).await;
        let location = browser.sign_in("mira").await.location();
        assert!(location.starts_with(&format!("{REDIRECT}{separator}")), "{location}");
        assert_eq!(fields(&location)["state"], state);
    }
    let mut browser = Browser::new(&world);
    let more = [("response_mode", "form_post"), ("state", &state)];
    browser.open(&authorize_path(&world, &app, &more)).await;
    let page = browser.sign_in("mira").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("form-action 'self' https://client.example"), "{policy}");
    let (action, fields) = form_of(&page.text);
    assert_eq!(action, REDIRECT);
    assert_eq!(fields["state"], state);
    assert!(fields["code"].len() > 40);
    let page = shown(&world, &app, &[("response_mode", "pigeon")]).await;
    assert!(
        crate::support::fields(&page.location())["error_description"].starts_with("AADSTS70007")
    );
}

// CHECKLIST 51, 52
#[tokio::test]
async fn challenges_are_verified() {
    let world = World::start().await;
    let public = world.public().await;
    world.consent(&public, &["Machine.Read"]).await;
    let local = ("redirect_uri", "http://localhost");
    let refusal = async |more: &[(&str, &str)]| {
        let mut all = vec![local];
        all.extend(more);
        fields(&shown(&world, &public, &all).await.location())
    };
    let none = [("code_challenge", ""), ("code_challenge_method", "")];
    assert_eq!(refusal(&none).await["error"], "invalid_request", "a public client needs one");
    for (challenge, method, number) in [
        (CHALLENGE, "plain", "AADSTS9002313"),
        (CHALLENGE, "", "AADSTS9002313"),
        ("short", "S256", "AADSTS501491"),
        (&"x".repeat(129), "S256", "AADSTS501491"),
        (&format!("{}=", &CHALLENGE[1..]), "S256", "AADSTS501491"),
    ] {
        let back =
            refusal(&[("code_challenge", challenge), ("code_challenge_method", method)]).await;
        assert!(back["error_description"].starts_with(number), "{challenge}: {back:?}");
    }
    let redeem = async |code: &str, verifier: &str| {
        let redeemed = [
            ("grant_type", "authorization_code"),
            ("client_id", public.as_str()),
            ("code", code),
            ("redirect_uri", "http://localhost"),
            ("code_verifier", verifier),
        ];
        world.form(&world.v2(), &redeemed).await
    };
    let code = authorize(&world, &public, "mira", &[local]).await["code"].clone();
    assert_eq!(redeem(&code, VERIFIER).await.status, 200);
    let code = authorize(&world, &public, "mira", &[local]).await["code"].clone();
    let wrong = redeem(&code, &"x".repeat(43)).await;
    refused("wrong verifier", &wrong, 400, 501481, "invalid_grant");
    let code = authorize(&world, &public, "mira", &[local]).await["code"].clone();
    refused("no verifier", &redeem(&code, "").await, 400, 900144, "invalid_request");
    // A verifier without a challenge: somebody took the challenge away.
    let (app, secret) = web(&world).await;
    let code = authorize(&world, &app, "mira", &none).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    refused("downgrade", &answer, 400, 501481, "invalid_grant");
    // Switches for old clients.
    let mut registration = web_registration();
    registration.allow_plain_challenge = true;
    let app = world.application(&[], registration).await;
    world.consent(&app, &["Machine.Read"]).await;
    let secret = world.secret(&app).await;
    let plain = [("code_challenge", VERIFIER), ("code_challenge_method", "plain")];
    let code = authorize(&world, &app, "mira", &plain).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

// CHECKLIST 53, 54
#[tokio::test]
async fn a_code_works_once_and_its_second_use_ends_the_first() {
    let world = World::start().await;
    let (app, secret) = web(&world).await;
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    // 256 bits behind a prefix.
    assert_eq!(code.len(), 45);
    let first = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let refresh = first.text_of("refresh_token").to_owned();
    let again = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    refused("again", &again, 400, 54005, "invalid_grant");
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("refresh_token", refresh.as_str()),
    ];
    refused("revoked", &world.form(&world.v2(), &fields).await, 400, 70000, "invalid_grant");
}

// CHECKLIST 54, 107
#[tokio::test]
async fn of_two_that_race_for_a_code_one_wins() {
    let world = World::start().await;
    let (app, secret) = web(&world).await;
    for _ in 0..5 {
        let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
        let redeem = async || {
            let fields = redemption(&app, &secret, &code);
            world.form(&world.v2(), &fields).await
        };
        let (a, b, c) = tokio::join!(redeem(), redeem(), redeem());
        let won = [&a, &b, &c].iter().filter(|answer| answer.status == 200).count();
        assert_eq!(won, 1, "{} {} {}", a.text, b.text, c.text);
        let winner = [&a, &b, &c].into_iter().find(|answer| answer.status == 200).expect("one");
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", app.as_str()),
            ("client_secret", secret.as_str()),
            ("refresh_token", winner.text_of("refresh_token")),
        ];
        let ended = world.form(&world.v2(), &fields).await;
        refused("ended by the others", &ended, 400, 70000, "invalid_grant");
    }
}

// CHECKLIST 53, 55, 56
#[tokio::test]
async fn a_code_is_bound_to_client_address_and_time() {
    let world = World::start().await;
    let (app, secret) = web(&world).await;
    let (other, other_secret) = web(&world).await;
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&other, &other_secret, &code)).await;
    refused("another client", &answer, 400, 70000, "invalid_grant");
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    refused("spent by it", &answer, 400, 54005, "invalid_grant");
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let mut fields = redemption(&app, &secret, &code);
    fields.retain(|(name, _)| *name != "redirect_uri");
    fields.push(("redirect_uri", "https://client.example/other"));
    refused(
        "another address",
        &world.form(&world.v2(), &fields).await,
        400,
        70000,
        "invalid_grant",
    );
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    refused("spent by it", &answer, 400, 54005, "invalid_grant");
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    world.clock.advance(TimeDelta::minutes(6));
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    refused("late", &answer, 400, 70008, "invalid_grant");
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let mut fields = redemption(&app, &secret, &code);
    fields.retain(|(name, _)| *name != "client_secret");
    refused("no proof", &world.form(&world.v2(), &fields).await, 401, 7000218, "invalid_client");
}

// CHECKLIST 57
#[tokio::test]
async fn the_answer_says_which_session_and_server_it_is_of() {
    let world = World::start().await;
    let (app, _) = web(&world).await;
    let back = authorize(&world, &app, "mira", &[("client_info", "1")]).await;
    assert_eq!(back["session_state"].len(), 36);
    assert_eq!(back["iss"], format!("{BASE}/{}/v2.0", world.tenant));
    assert!(!back["client_info"].is_empty());
    let path = format!("/{}/v2.0/.well-known/openid-configuration", world.tenant);
    let document = world.get(&path).await;
    assert_eq!(document.body["authorization_response_iss_parameter_supported"], true);
}

// CHECKLIST 58
#[tokio::test]
async fn prompts_and_hints_are_honoured() {
    let world = World::start().await;
    let (app, _) = web(&world).await;
    let path = |more: &[(&str, &str)]| authorize_path(&world, &app, more);
    let mut browser = Browser::new(&world);
    let error = |answer: &Answer| fields(&answer.location())["error"].clone();
    let number = |answer: &Answer| fields(&answer.location())["error_description"].clone();
    let silent = browser.open(&path(&[("prompt", "none")])).await;
    assert_eq!(error(silent), "login_required");
    assert!(number(silent).starts_with("AADSTS50058"));
    browser.open(&path(&[("login_hint", "mira@tests.example")])).await;
    assert!(browser.page.text.contains("value=\"mira@tests.example\""));
    browser.open(&path(&[("domain_hint", "tests.example")])).await;
    assert!(browser.page.text.contains("value=\"@tests.example\""));
    browser.sign_in("mira").await.location();
    // Signed in now.
    assert!(fields(&browser.open(&path(&[])).await.location()).contains_key("code"));
    assert!(
        fields(&browser.open(&path(&[("prompt", "none")])).await.location()).contains_key("code")
    );
    browser.open(&path(&[("prompt", "login")])).await;
    assert_eq!(browser.title(), "Sign in");
    assert!(fields(&browser.sign_in("mira").await.location()).contains_key("code"));
    browser.open(&path(&[("prompt", "select_account")])).await;
    assert_eq!(browser.title(), "Pick an account");
    let chosen = browser.submit(&[("decision", "this")]).await.location();
    assert!(fields(&chosen).contains_key("code"));
    browser.open(&path(&[("prompt", "select_account")])).await;
    browser.submit(&[("decision", "other")]).await;
    assert_eq!(browser.title(), "Sign in");
    browser.open(&path(&[("prompt", "consent")])).await;
    assert_eq!(browser.title(), "Permissions requested");
    // Somebody else is wanted.
    browser.open(&path(&[("login_hint", "root@tests.example")])).await;
    assert_eq!(browser.title(), "Sign in");
    let other = [("login_hint", "root@tests.example"), ("prompt", "none")];
    let answer = browser.open(&path(&other)).await;
    assert_eq!(error(answer), "interaction_required");
    assert!(number(answer).starts_with("AADSTS16000"));
    let more = [
        ("prompt", "none"),
        ("scope", "https://api.securitycenter.microsoft.com/Alert.Read openid"),
    ];
    let answer = browser.open(&path(&more)).await;
    assert_eq!(error(answer), "consent_required");
    assert!(number(answer).starts_with("AADSTS65001"));
    for prompt in ["none login", "dance"] {
        assert_eq!(error(browser.open(&path(&[("prompt", prompt)])).await), "invalid_request");
    }
    // A session older than wanted is none.
    world.clock.advance(TimeDelta::minutes(10));
    browser.open(&path(&[("max_age", "60")])).await;
    assert_eq!(browser.title(), "Sign in");
    world.clock.advance(TimeDelta::hours(12));
    let ended = browser.open(&path(&[("prompt", "none")])).await;
    assert_eq!(error(ended), "login_required", "sessions end");
}

// CHECKLIST 59
#[tokio::test]
async fn claims_and_unknown_members_are_accepted() {
    let world = World::start().await;
    let (app, _) = web(&world).await;
    let more = [
        ("claims", r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#),
        ("clidata", "1"),
        ("sso_reload", "true"),
        ("x-client-SKU", "MSAL.Python"),
    ];
    assert!(authorize(&world, &app, "mira", &more).await.contains_key("code"));
    for claims in ["{not json", "[1]"] {
        let back = fields(&shown(&world, &app, &[("claims", claims)]).await.location());
        assert_eq!(back["error"], "invalid_request", "{claims}");
    }
    for name in ["request", "request_uri"] {
        let back = fields(&shown(&world, &app, &[(name, "x")]).await.location());
        assert_eq!(back["error"], "request_not_supported", "{name}");
    }
}

// CHECKLIST 60, 62
#[tokio::test]
async fn pages_are_strict_and_work_without_script() {
    // The browser of these tests has no script, and checks headers and labels of every page.
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    let mut browser = Browser::new(&world);
    browser.open(&authorize_path(&world, &app, &[])).await;
    assert!(!browser.page.text.contains("<script"));
    let wrong = [("login", "mira@tests.example"), ("passwd", "wrong password")];
    browser.submit(&wrong).await;
    assert_eq!(browser.title(), "Sign in");
    assert!(browser.page.text.contains("role=\"alert\""));
    assert!(!browser.page.text.contains("wrong password"));
    browser.sign_in("mira").await;
    assert_eq!(browser.title(), "Permissions requested");
    let back = browser.submit(&[("decision", "accept")]).await;
    assert_eq!(back.status, 303, "never 307: the password would be sent on");
    assert!(fields(&back.location()).contains_key("code"));
}

// CHECKLIST 61
#[tokio::test]
async fn forms_are_bound_to_their_browser_and_sessions_get_new_ids() {
    let world = World::start().await;
    let (app, _) = web(&world).await;
    let mut mine = Browser::new(&world);
    mine.open(&authorize_path(&world, &app, &[])).await;
    // Another browser sends my form.
    let (action, form) = form_of(&mine.page.text);
    let mut other = Browser::new(&world);
    other.open(&authorize_path(&world, &app, &[])).await;
    let cookie =
        other.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ");
    let body = encode(&[
        ("ctx", form["ctx"].as_str()),
        ("login", "mira@tests.example"),
        ("passwd", PASSWORD),
    ]);
    for headers in [vec![], vec![("cookie", cookie.as_str())]] {
        let request = request(Method::POST, &action, &headers, body.clone().into());
        let answer = world.send(request).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.headers.get("set-cookie").is_none());
    }
    // Without any form of ours.
    let request =
        request(Method::POST, &action, &[], encode(&[("login", "a"), ("passwd", "b")]).into());
    assert_eq!(world.send(request).await.status, 400);
    mine.sign_in("mira").await;
    let first = mine.cookies["__Host-vigie-session"].clone();
    mine.open(&authorize_path(&world, &app, &[("prompt", "login")])).await;
    mine.sign_in("mira").await;
    let second = mine.cookies["__Host-vigie-session"].clone();
    assert_ne!(first, second);
    mine.cookies.insert("__Host-vigie-session".to_owned(), first);
    mine.open(&authorize_path(&world, &app, &[])).await;
    assert_eq!(mine.title(), "Sign in", "the earlier session has ended");
    // A page that lay open too long.
    let mut slow = Browser::new(&world);
    slow.open(&authorize_path(&world, &app, &[])).await;
    world.clock.advance(TimeDelta::hours(1));
    let late = [("login", "mira@tests.example"), ("passwd", PASSWORD)];
    assert_eq!(slow.submit(&late).await.status, 400);
}

// CHECKLIST 110
#[tokio::test]
async fn only_single_page_applications_redeem_across_origins() {
    let world = World::start().await;
    let mut registration = web_registration();
    registration.redirect_uris.web.clear();
    registration.redirect_uris.spa = vec![REDIRECT.to_owned()];
    let spa = world.application(&[], registration).await;
    world.consent(&spa, &["Machine.Read"]).await;
    let origin = [("origin", "https://client.example")];
    let code = authorize(&world, &spa, "mira", &[]).await["code"].clone();
    let mut fields = redemption(&spa, "", &code);
    fields.retain(|(name, _)| *name != "client_secret");
    let answer = world.form_with(&world.v2(), &fields, &origin).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("access-control-allow-origin"), "https://client.example");
    // Its refresh tokens end a day after the sign-in, however often they are used.
    let refresh = async |token: &str, headers: &[(&str, &str)]| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", spa.as_str()),
            ("refresh_token", token),
        ];
        world.form_with(&world.v2(), &fields, headers).await
    };
    world.clock.advance(TimeDelta::hours(20));
    let first = answer.text_of("refresh_token").to_owned();
    let answer = refresh(&first, &[]).await;
    refused("not from a browser", &answer, 400, 9002327, "invalid_request");
    let answer = refresh(&first, &origin).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let second = answer.text_of("refresh_token").to_owned();
    world.clock.advance(TimeDelta::hours(5));
    refused("a day later", &refresh(&second, &origin).await, 400, 700084, "invalid_grant");
    let (web, secret) = web(&world).await;
    let code = authorize(&world, &web, "mira", &[]).await["code"].clone();
    let fields = redemption(&web, &secret, &code);
    let answer = world.form_with(&world.v2(), &fields, &origin).await;
    refused("a web application", &answer, 400, 9002326, "invalid_request");
    assert!(answer.header("access-control-allow-origin").is_empty());
    let page = request(Method::GET, &authorize_path(&world, &spa, &[]), &origin, "".into());
    let page = world.send(page).await;
    assert!(page.header("access-control-allow-origin").is_empty());
}
