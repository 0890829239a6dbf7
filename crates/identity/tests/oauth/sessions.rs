//! User info, introspection, revocation, sign-out.

use crate::support::*;
use axum::body::Body;
use http::Method;

async fn signed_in(world: &World) -> (String, String, Answer) {
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Machine.Read"]).await;
    let secret = world.secret(&app).await;
    let code = authorize(world, &app, "mira", &[]).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    (app, secret, answer)
}

// CHECKLIST 103
#[tokio::test]
async fn user_info_tells_the_subject_of_the_id_token() {
    let world = World::start().await;
    let (app, secret) = world.confidential(web_registration()).await;
    let scope = [("scope", "openid profile email")];
    let code = authorize(&world, &app, "mira", &scope).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    let bearer = format!("Bearer {}", answer.text_of("access_token"));
    let id = claims(answer.text_of("id_token"));
    for method in [Method::GET, Method::POST] {
        let headers = [("authorization", bearer.as_str())];
        let shown = world.send(request(method, "/oidc/userinfo", &headers, Body::empty())).await;
        assert_eq!(shown.status, 200, "{}", shown.text);
        assert_eq!(shown.body["sub"], id["sub"]);
        assert_eq!(shown.body["name"], "Display of mira@tests.example");
        assert_eq!(shown.body["email"], "mira@tests.example");
        assert_eq!(shown.body["given_name"], "Given");
    }
    // Tokens of other resources, id tokens, none.
    let (_, _, other) = signed_in(&world).await;
    for token in [other.text_of("access_token"), answer.text_of("id_token"), "nonsense"] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let refused =
            world.send(request(Method::GET, "/oidc/userinfo", &headers, Body::empty())).await;
        assert_eq!(refused.status, 401);
        assert!(refused.header("www-authenticate").contains("invalid_token"));
    }
    assert_eq!(world.get("/oidc/userinfo").await.status, 401);
}

// CHECKLIST 104
#[tokio::test]
async fn signing_out_ends_the_session_and_goes_to_registered_addresses_only() {
    let world = World::start().await;
    let (app, _, answer) = signed_in(&world).await;
    let hint = answer.text_of("id_token").to_owned();
    let logout =
        |more: &[(&str, &str)]| format!("/{}/oauth2/v2.0/logout?{}", world.tenant, encode(more));
    let mut browser = Browser::new(&world);
    let sign_in = authorize_path(&world, &app, &[]);
    browser.open(&sign_in).await;
    browser.sign_in("mira").await;
    let here = ("post_logout_redirect_uri", REDIRECT);
    let back = browser.open(&logout(&[here, ("id_token_hint", &hint), ("state", "a b")])).await;
    assert_eq!(back.location(), format!("{REDIRECT}?state=a%20b"));
    browser.open(&sign_in).await;
    assert_eq!(browser.title(), "Sign in", "the session has ended");
    let back = browser.open(&logout(&[here, ("client_id", &app)])).await;
    assert_eq!(back.location(), REDIRECT);
    let evil = ("post_logout_redirect_uri", "https://evil.example/");
    let forged = format!("{hint}AAAA");
    for more in [
        vec![evil, ("client_id", app.as_str())],
        vec![evil, ("id_token_hint", hint.as_str())],
        vec![here],
        vec![here, ("id_token_hint", forged.as_str())],
        vec![],
    ] {
        browser.open(&logout(&more)).await;
        assert_eq!(browser.title(), "You signed out of your account", "{more:?}");
    }
}

// CHECKLIST 105
#[tokio::test]
async fn clients_look_into_their_own_tokens_and_revoke_them() {
    let world = World::start().await;
    let (app, secret, answer) = signed_in(&world).await;
    let (other, other_secret, _) = signed_in(&world).await;
    let path = |end: &str| format!("/{}/oauth2/v2.0/{end}", world.tenant);
    let ask = async |end: &str, client: (&str, &str), token: &str| {
        let fields = [("client_id", client.0), ("client_secret", client.1), ("token", token)];
        world.form(&path(end), &fields).await
    };
    let own = (app.as_str(), secret.as_str());
    let (access, refresh) = (answer.text_of("access_token"), answer.text_of("refresh_token"));
    for token in [access, refresh] {
        let shown = ask("introspect", own, token).await;
        assert_eq!(shown.body["active"], true, "{}", shown.text);
        assert_eq!(shown.body["client_id"], app);
        let foreign = ask("introspect", (&other, &other_secret), token).await;
        assert_eq!(foreign.text, r#"{"active":false}"#);
    }
    let shown = ask("introspect", own, access).await;
    assert_eq!(
        (&shown.body["scope"], &shown.body["username"]),
        (&"Machine.Read".into(), &"mira@tests.example".into())
    );
    for token in ["nonsense", answer.text_of("id_token")] {
        let unknown = ask("introspect", own, token).await;
        assert_eq!((unknown.status.as_u16(), unknown.text.as_str()), (200, r#"{"active":false}"#));
        assert_eq!(ask("revoke", own, token).await.status, 200);
    }
    refused(
        "no proof",
        &ask("introspect", (&app, ""), access).await,
        401,
        7000218,
        "invalid_client",
    );
    refused("no proof", &ask("revoke", (&app, ""), refresh).await, 401, 7000218, "invalid_client");
    // Another client revokes nothing.
    assert_eq!(ask("revoke", (&other, &other_secret), refresh).await.status, 200);
    assert_eq!(ask("introspect", own, refresh).await.body["active"], true);
    assert_eq!(ask("revoke", own, refresh).await.status, 200);
    assert_eq!(ask("introspect", own, refresh).await.body["active"], false);
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("refresh_token", refresh),
    ];
    refused("revoked", &world.form(&world.v2(), &fields).await, 400, 70000, "invalid_grant");
}
