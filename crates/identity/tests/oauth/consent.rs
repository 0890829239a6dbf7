//! Consent and scopes, of users and of administrators, here and in partners' tenants.

use crate::support::*;
use serde_json::json;
use uuid::Uuid;
use vigie_contract::administration::*;

const READ: &str = "https://api.securitycenter.microsoft.com/Machine.Read";

async fn redeem(world: &World, app: &str, secret: &str, code: &str) -> Answer {
    world.form(&world.v2(), &redemption(app, secret, code)).await
}

// CHECKLIST 63, 67
#[tokio::test]
async fn a_token_holds_what_was_granted_and_asked_for() {
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    let secret = world.secret(&app).await;
    world.consent(&app, &["Alert.Read", "Machine.Read"]).await;
    for (scope, scp) in [
        (READ.to_owned(), "Machine.Read"),
        (format!("{READ} openid"), "Machine.Read"),
        (SCOPE.to_owned(), "Alert.Read Machine.Read"),
        (format!("{DEFENDER}/machine.read"), "Machine.Read"),
    ] {
        let code = authorize(&world, &app, "mira", &[("scope", &scope)]).await["code"].clone();
        let answer = redeem(&world, &app, &secret, &code).await;
        assert_eq!(claims(answer.text_of("access_token"))["scp"], scp, "{scope}");
        assert!(answer.text_of("scope").contains(DEFENDER), "{}", answer.text);
    }
    for scope in [format!("{DEFENDER}/Everything.Please"), "Machine.Read".to_owned()] {
        let back = world.get(&authorize_path(&world, &app, &[("scope", &scope)])).await;
        let back = fields(&back.location());
        assert!(back["error_description"].starts_with("AADSTS70011"), "{scope}: {back:?}");
    }
}

// CHECKLIST 65, 66
#[tokio::test]
async fn users_consent_to_reading_and_administrators_to_more() {
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    let secret = world.secret(&app).await;
    let mut browser = Browser::new(&world);
    browser.open(&authorize_path(&world, &app, &[])).await;
    browser.sign_in("mira").await;
    assert_eq!(browser.title(), "Permissions requested");
    for told in ["Client &lt;of&gt; tests", "Tests", "mira@tests.example", "Machine.Read", &app] {
        assert!(browser.page.text.contains(told), "{told}: {}", browser.page.text);
    }
    let back = fields(&browser.submit(&[("decision", "cancel")]).await.location());
    assert_eq!(back["error"], "access_denied");
    assert!(back["error_description"].starts_with("AADSTS65004"));
    browser.open(&authorize_path(&world, &app, &[])).await;
    let back = fields(&browser.submit(&[("decision", "accept")]).await.location());
    let answer = redeem(&world, &app, &secret, &back["code"]).await;
    assert_eq!(claims(answer.text_of("access_token"))["scp"], "Machine.Read");
    // Once is enough for this user, and says nothing for others.
    assert!(
        fields(&browser.open(&authorize_path(&world, &app, &[])).await.location())
            .contains_key("code")
    );
    world.user("otto", &[]).await;
    let mut other = Browser::new(&world);
    other.open(&authorize_path(&world, &app, &[])).await;
    other.sign_in("otto").await;
    assert_eq!(other.title(), "Permissions requested");
    // What changes something needs an administrator.
    let isolate = [("scope", "https://api.securitycenter.microsoft.com/Machine.Isolate")];
    browser.open(&authorize_path(&world, &app, &isolate)).await;
    assert_eq!(browser.title(), "Need admin approval");
    assert!(browser.page.text.contains("AADSTS90094"));
    let mut root = Browser::new(&world);
    root.open(&authorize_path(&world, &app, &isolate)).await;
    root.sign_in("root").await;
    assert_eq!(root.title(), "Permissions requested");
    root.submit(&[("decision", "accept"), ("everybody", "1")]).await.location();
    let back = fields(&browser.open(&authorize_path(&world, &app, &isolate)).await.location());
    let answer = redeem(&world, &app, &secret, &back["code"]).await;
    assert_eq!(claims(answer.text_of("access_token"))["scp"], "Machine.Isolate");
    // A user that claims to consent for everybody does not.
    world.settings(|settings| settings.allow_user_consent = false).await;
    other.open(&authorize_path(&world, &app, &[])).await;
    assert_eq!(other.title(), "Need admin approval");
}

// CHECKLIST 66
#[tokio::test]
async fn without_consent_nothing_is_issued_silently() {
    let world = World::start().await;
    world.settings(|settings| settings.allow_password_grant = true).await;
    let app = world.public().await;
    let fields = [
        ("grant_type", "password"),
        ("client_id", app.as_str()),
        ("username", "mira@tests.example"),
        ("password", PASSWORD),
        ("scope", READ),
    ];
    let answer = world.form(&world.v2(), &fields).await;
    refused("no consent", &answer, 400, 65001, "invalid_grant");
    assert_eq!(answer.body["suberror"], "consent_required");
}

// CHECKLIST 64
#[tokio::test]
async fn an_administrator_consents_for_a_partners_application() {
    let world = World::start().await;
    let customer = world.second_tenant().await;
    let mut registration = web_registration();
    registration.multi_tenant = true;
    registration.application_permissions =
        vec!["Alert.Read.All".to_owned(), "Machine.Read.All".to_owned()];
    let app = world.application(&["Machine.Read.All"], registration).await;
    let secret = world.secret(&app).await;
    let token = async |tenant: Uuid| {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", app.as_str()),
            ("client_secret", secret.as_str()),
            ("scope", SCOPE),
        ];
        world.form(&format!("/{tenant}/oauth2/v2.0/token"), &fields).await
    };
    refused("before", &token(customer).await, 400, 700016, "unauthorized_client");
    let path = |tenant: &str, form: &str| {
        let query = encode(&[("client_id", &app), ("redirect_uri", REDIRECT), ("state", "s")]);
        format!("/{tenant}/{form}?{query}")
    };
    // A user that is no administrator cannot.
    let mut clerk = Browser::new(&world);
    clerk.open(&path("customer.example", "adminconsent")).await;
    let back = fields(&clerk.sign_in("clerk@customer.example").await.location());
    assert!(back["error_description"].starts_with("AADSTS90094"), "{back:?}");
    let mut chief = Browser::new(&world);
    chief.open(&path("common", "v2.0/adminconsent")).await;
    chief.sign_in("chief@customer.example").await;
    assert_eq!(chief.title(), "Permissions requested");
    assert!(chief.page.text.contains("Alert.Read.All"), "{}", chief.page.text);
    let back = fields(&chief.submit(&[("decision", "cancel")]).await.location());
    assert_eq!(back["error"], "access_denied");
    assert!(back["error_description"].starts_with("AADSTS65004"));
    chief.open(&path(&customer.to_string(), "adminconsent")).await;
    let back = fields(&chief.submit(&[("decision", "accept")]).await.location());
    assert_eq!(back["admin_consent"], "True");
    assert_eq!(back["tenant"], customer.to_string());
    assert_eq!(back["state"], "s");
    let answer = token(customer).await;
    let told = claims(answer.text_of("access_token"));
    assert_eq!(told["tid"], customer.to_string());
    assert_eq!(told["roles"], json!(["Alert.Read.All", "Machine.Read.All"]));
    // Each tenant has a service principal of its own.
    let own = token(world.tenant).await;
    let own = claims(own.text_of("access_token"));
    assert_ne!(own["oid"], told["oid"]);
    assert_eq!(own["roles"], json!(["Machine.Read.All"]));
    // Withdrawn, it is gone.
    let id = Uuid::try_parse(&app).expect("an id");
    world.directory.delete_service_principal("tests", customer, id).await.expect("deleted");
    refused("withdrawn", &token(customer).await, 400, 700016, "unauthorized_client");
}

/// The link that partners send to their customers: no redirect address, no scope.
#[tokio::test]
async fn a_partners_link_leads_an_administrator_to_consent() {
    let world = World::start().await;
    let customer = world.second_tenant().await;
    let mut registration = web_registration();
    registration.multi_tenant = true;
    registration.application_permissions = vec!["Alert.Read.All".to_owned()];
    let app = world.application(&[], registration).await;
    let secret = world.secret(&app).await;
    let link = format!(
        "/common/oauth2/authorize?prompt=consent&client_id={app}&response_type=code&sso_reload=true"
    );
    let mut chief = Browser::new(&world);
    chief.open(&link).await;
    chief.sign_in("chief@customer.example").await;
    assert_eq!(chief.title(), "Permissions requested");
    let back = chief.submit(&[("decision", "accept"), ("everybody", "1")]).await.location();
    assert!(fields(&back).contains_key("code"), "{back}");
    let ask = [
        ("grant_type", "client_credentials"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("resource", DEFENDER),
    ];
    let answer = world.form(&format!("/{customer}/oauth2/token"), &ask).await;
    assert_eq!(claims(answer.text_of("access_token"))["roles"], json!(["Alert.Read.All"]));
}

// CHECKLIST 68
#[tokio::test]
async fn what_is_withdrawn_ends_at_once() {
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    let secret = world.secret(&app).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let fresh = async || {
        world.consent(&app, &["Machine.Read"]).await;
        let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
        redeem(&world, &app, &secret, &code).await.text_of("refresh_token").to_owned()
    };
    let refresh = async |token: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", app.as_str()),
            ("client_secret", secret.as_str()),
            ("refresh_token", token),
        ];
        world.form(&world.v2(), &fields).await
    };
    let change = async |change: UserChange| {
        let name = "mira@tests.example";
        world.directory.change_user("tests", world.tenant, name, &change).await.expect("changed");
    };
    let token = fresh().await;
    world.consent(&app, &[]).await;
    refused("consent", &refresh(&token).await, 400, 65001, "invalid_grant");
    let token = fresh().await;
    change(UserChange { enabled: Some(false), ..UserChange::default() }).await;
    refused("user", &refresh(&token).await, 400, 50057, "invalid_grant");
    change(UserChange { enabled: Some(true), ..UserChange::default() }).await;
    assert_eq!(refresh(&token).await.status, 200);
    let principal = |enabled: bool| ServicePrincipalChange {
        enabled: Some(enabled),
        ..ServicePrincipalChange::default()
    };
    let directory = &world.directory;
    let set =
        directory.change_service_principal("tests", world.tenant, id, &principal(false)).await;
    set.expect("changed");
    refused("application", &refresh(&token).await, 400, 7000112, "unauthorized_client");
    let set = directory.change_service_principal("tests", world.tenant, id, &principal(true)).await;
    set.expect("changed");
    directory.delete_user("tests", world.tenant, "mira@tests.example").await.expect("deleted");
    refused("no user", &refresh(&token).await, 400, 70000, "invalid_grant");
}

// CHECKLIST 69
#[tokio::test]
async fn one_resource_at_a_time() {
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    let secret = world.secret(&app).await;
    world.consent(&app, &["Machine.Read"]).await;
    let two = format!("{READ} https://graph.microsoft.com/User.Read openid");
    let back = world.get(&authorize_path(&world, &app, &[("scope", &two)])).await;
    assert!(fields(&back.location())["error_description"].starts_with("AADSTS28000"));
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let mut redeemed = redemption(&app, &secret, &code);
    redeemed.push(("scope", &two));
    refused("two", &world.form(&world.v2(), &redeemed).await, 400, 28000, "invalid_request");
    // A second resource comes by the refresh token.
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let first = redeem(&world, &app, &secret, &code).await;
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("refresh_token", first.text_of("refresh_token")),
        ("scope", "https://graph.microsoft.com/User.Read openid"),
    ];
    let second = world.form(&world.v2(), &fields).await;
    assert_eq!(claims(second.text_of("access_token"))["aud"], "https://graph.microsoft.com");
}

#[tokio::test]
async fn where_assignment_is_required_others_are_refused() {
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Machine.Read"]).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let otto = world.user("otto", &[]).await.id;
    let change = ServicePrincipalChange {
        assignment_required: Some(true),
        assigned_users: Some(vec![otto]),
        ..ServicePrincipalChange::default()
    };
    let set = world.directory.change_service_principal("tests", world.tenant, id, &change).await;
    set.expect("changed");
    world.clock.advance(chrono::TimeDelta::seconds(2));
    assert!(authorize(&world, &app, "otto", &[]).await.contains_key("code"));
    let back = authorize(&world, &app, "mira", &[]).await;
    assert_eq!(back["error"], "access_denied");
    assert!(back["error_description"].starts_with("AADSTS50105"), "{back:?}");
}
