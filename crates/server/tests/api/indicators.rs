//! Indicators: submitted, imported, listed, deleted, and met by arriving rows.

use crate::support::{TestSensor, World};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};

const SHA1: &str = "0991a395da64e1c5fbe8732ed11e6be064081d9f";

fn indicator(ty: &str, value: &str, action: &str) -> Json {
    json!({
        "indicatorValue": value, "indicatorType": ty, "action": action, "title": "Known bad",
        "description": "seen in a test", "application": "tests", "severity": "Medium",
        "recommendedActions": "look", "rbacGroupNames": [],
    })
}

#[tokio::test]
async fn indicators_are_submitted_changed_listed_and_deleted() {
    let world = World::start().await;
    let token = world.token_for(&["Ti.ReadWrite.All"]).await;
    let submit = async |body: Json| world.post("/api/indicators", &token, body).await;
    let made = submit(indicator("FileSha1", SHA1, "AlertAndBlock")).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let id = made.body["id"].as_str().expect("a text").to_owned();
    assert!(id.parse::<u64>().is_ok(), "{id}");
    assert_eq!(made.body["generateAlert"], true);
    assert_eq!(made.body["createdBySource"], "PublicApi");
    assert_eq!(made.body["expirationTime"], Json::Null);
    world.clock.advance(TimeDelta::seconds(1));
    let mut again = indicator("FileSha1", &SHA1.to_uppercase(), "Audit");
    again["title"] = "Changed".into();
    again["application"] = "other".into();
    again["unknownMember"] = 1.into();
    let changed = submit(again).await.body;
    assert_eq!(changed["id"], id.as_str(), "the same value is the same indicator");
    assert_eq!((&changed["title"], &changed["application"]), (&json!("Changed"), &json!("tests")));
    assert_eq!(changed["creationTimeDateTimeUtc"], made.body["creationTimeDateTimeUtc"]);
    assert_ne!(changed["lastUpdateTime"], made.body["lastUpdateTime"]);
    for (ty, value, action) in [
        ("FileSha256", SHA1.repeat(2)[..64].to_owned(), "Block"),
        ("FileMd5", SHA1[..32].to_owned(), "BlockAndRemediate"),
        ("CertificateThumbprint", SHA1.to_owned(), "Allowed"),
        ("IpAddress", "192.0.2.9".to_owned(), "Warn"),
        ("IpAddress", "198.51.100.0/24".to_owned(), "Alert"),
        ("DomainName", "bad.example".to_owned(), "Block"),
        ("Url", "https://bad.example/x'y".to_owned(), "Warn"),
    ] {
        let made = submit(indicator(ty, &value, action)).await;
        assert_eq!(made.status, 200, "{ty}: {}", made.body);
        assert_eq!(made.body["indicatorValue"], value.as_str());
    }
    let list = async |options: &str| {
        let listed = world.get(&format!("/api/indicators?{options}"), &token).await;
        assert_eq!(listed.status, 200, "{options}: {}", listed.body);
        listed.body["value"].as_array().expect("a list").len()
    };
    for (filter, found) in [
        ("", 8),
        ("$filter=action+eq+'Warn'", 2),
        ("$filter=indicatorValue eq 'https://bad.example/x''y'", 1),
        ("$filter=indicatorValue+in+['bad.example','192.0.2.9']", 2),
        ("$filter=indicatorType eq 'IpAddress' and generateAlert eq true", 1),
        ("$filter=expirationTime eq null and createdByDisplayName eq 'tests'", 8),
        ("$filter=rbacGroupNames/any(g: g eq 'x')", 0),
        ("$top=1", 1),
    ] {
        assert_eq!(list(filter).await, found, "{filter}");
    }
    world.select_each("/api/indicators", &token).await;
    let gone = world.call(Method::DELETE, &format!("/api/indicators/{id}"), &token, None).await;
    assert_eq!((gone.status, gone.body), (204, json!("")));
    let gone = world.call(Method::DELETE, &format!("/api/indicators/{id}"), &token, None).await;
    assert_eq!(gone.status, 404);
    let all = world.get("/api/indicators?$select=id", &token).await.body;
    let ids: Vec<&Json> =
        all["value"].as_array().expect("a list").iter().map(|i| &i["id"]).collect();
    let batch = async |ids: Json| {
        world.post("/api/indicators/BatchDelete", &token, json!({"IndicatorIds": ids})).await.status
    };
    assert_eq!(batch(json!([])).await, 400);
    assert_eq!(batch(json!(["x"])).await, 400);
    assert_eq!(batch(json!(vec!["1"; 501])).await, 400);
    assert_eq!(batch(json!([ids[0], "999999"])).await, 404);
    assert_eq!(list("").await, 7, "all or none");
    assert_eq!(batch(json!(ids)).await, 204);
    assert_eq!(list("").await, 0);
    world.stop().await;
}

#[tokio::test]
async fn indicators_that_are_wrong_say_why() {
    let world = World::start().await;
    let token = world.token_for(&["Ti.ReadWrite.All"]).await;
    for (ty, value, action, code) in [
        ("FileSha1", "0991", "Block", "InvalidHashValue"),
        ("FileSha256", SHA1, "Block", "InvalidHashValue"),
        ("CertificateThumbprint", "xyz", "Allowed", "InvalidHashValue"),
        ("IpAddress", "10.0.0", "Block", "InvalidIpAddress"),
        ("IpAddress", "10.0.0.0/64", "Block", "InvalidIpAddress"),
        ("DomainName", "nothing", "Block", "InvalidDomainName"),
        ("Url", "not a url", "Block", "InvalidUrl"),
        ("Colour", "red", "Block", "InvalidRequestBody"),
        ("FileSha1", SHA1, "Destroy", "InvalidRequestBody"),
        ("IpAddress", "192.0.2.1", "BlockAndRemediate", "InvalidRequestBody"),
        ("CertificateThumbprint", SHA1, "Audit", "InvalidRequestBody"),
    ] {
        let refused = world.post("/api/indicators", &token, indicator(ty, value, action)).await;
        let error = &refused.body["error"];
        assert_eq!((refused.status, &error["code"]), (400, &json!(code)), "{ty} {value} {action}");
    }
    for (member, value, code) in [
        ("generateAlert", json!(false), "InvalidRequestBody"),
        ("expirationTime", json!("2020-01-01T00:00:00Z"), "InvalidRequestBody"),
        ("expirationTime", json!("soon"), "InvalidRequestBody"),
        ("severity", json!("Terrible"), "InvalidRequestBody"),
        ("title", Json::Null, "MissingRequiredParameter"),
        ("indicatorValue", json!(5), "InvalidRequestBody"),
    ] {
        let mut body = indicator("FileSha1", SHA1, "Audit");
        body[member] = value;
        let refused = world.post("/api/indicators", &token, body).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["code"]),
            (400, &json!(code)),
            "{member}"
        );
    }
    assert_eq!(world.get("/api/indicators/$count", &token).await.body, json!(0));
    world.stop().await;
}

#[tokio::test]
async fn an_import_tells_of_each_row() {
    let world = World::start().await;
    let token = world.token_for(&["Ti.ReadWrite.All"]).await;
    let import = async |rows: Json| {
        world.post("/api/indicators/import", &token, json!({"Indicators": rows})).await
    };
    let done = import(json!([
        indicator("FileSha1", SHA1, "Alert"),
        indicator("FileSha1", "nonsense", "Alert"),
        {"IndicatorValue": "192.0.2.5", "INDICATORTYPE": "IpAddress"},
        indicator("DomainName", "bad.example", "Block"),
        7,
    ]))
    .await;
    assert_eq!(done.status, 200, "{}", done.body);
    let rows = done.body["value"].as_array().expect("results");
    let failed: Vec<bool> = rows.iter().map(|row| row["isFailed"] == true).collect();
    assert_eq!(failed, [false, true, true, false, true]);
    assert_eq!(rows[0]["failureReason"], Json::Null);
    assert_eq!(rows[0]["indicator"], SHA1);
    assert_eq!(rows[1]["id"], Json::Null);
    assert_eq!(rows[2]["indicator"], "192.0.2.5");
    assert!(rows[2]["failureReason"].as_str().expect("why").contains("action"), "{}", rows[2]);
    assert_eq!(world.get("/api/indicators/$count", &token).await.body, json!(2));
    assert_eq!(import(json!([])).await.status, 400, "a probe for the right to write");
    let many: Vec<Json> = (0..501).map(|_| indicator("FileSha1", SHA1, "Alert")).collect();
    assert_eq!(import(json!(many)).await.body["error"]["code"], "MaximumBatchSizeExceeded");
    let reader = world.token_for(&["Alert.Read.All"]).await;
    let probe = world.post("/api/indicators/import", &reader, json!({"Indicators": []})).await;
    assert_eq!(probe.status, 403);
    world.stop().await;
}

#[tokio::test]
async fn applications_see_their_own_and_tenants_never_each_others() {
    let world = World::start().await;
    let all = world.token_for(&["Ti.ReadWrite.All"]).await;
    let own = world.token_for(&["Ti.ReadWrite"]).await;
    let (_, theirs, _) = world.second_tenant(&["Ti.ReadWrite.All"]).await;
    let make = async |token: &str, value: &str| {
        let body = indicator("DomainName", value, "Block");
        world.post("/api/indicators", token, body).await
    };
    let first = make(&all, "first.example").await.body;
    make(&own, "second.example").await;
    make(&theirs, "first.example").await;
    let count = async |token: &str| world.get("/api/indicators/$count", token).await.body;
    assert_eq!(count(&all).await, json!(2));
    assert_eq!(count(&own).await, json!(1));
    assert_eq!(count(&theirs).await, json!(1));
    assert_eq!(make(&own, "first.example").await.status, 403, "not its own to change");
    let path = format!("/api/indicators/{}", first["id"].as_str().expect("an id"));
    for token in [&own, &theirs] {
        assert_eq!(world.call(Method::DELETE, &path, token, None).await.status, 404);
    }
    assert_eq!(world.call(Method::DELETE, &path, &all, None).await.status, 204);
    world.stop().await;
}

#[tokio::test]
async fn a_tenant_holds_fifteen_thousand_and_what_expires_makes_room() {
    let world = World::start().await;
    let token = world.token_for(&["Ti.ReadWrite.All"]).await;
    let expires = (world.clock.now() + TimeDelta::minutes(30)).to_rfc3339();
    for part in 0..30 {
        let rows: Vec<Json> = (0..500)
            .map(|at| {
                let mut row = indicator("FileSha1", &format!("{:040x}", part * 500 + at), "Alert");
                row["expirationTime"] = expires.as_str().into();
                row
            })
            .collect();
        let done = world.post("/api/indicators/import", &token, json!({"Indicators": rows})).await;
        assert_eq!(done.status, 200, "{}", done.body);
        let failed = done.body["value"].as_array().expect("rows").iter();
        assert_eq!(failed.filter(|row| row["isFailed"] == true).count(), 0);
    }
    let mut pages = 0;
    let mut path = "/api/indicators".to_owned();
    let mut seen = 0;
    loop {
        let page = world.get(&path, &token).await.body;
        seen += page["value"].as_array().expect("a list").len();
        pages += 1;
        let Some(next) = page["@odata.nextLink"].as_str() else { break };
        path = next[world.url.len()..].to_owned();
    }
    assert_eq!((seen, pages), (15_000, 2));
    let more = world.post("/api/indicators", &token, indicator("FileSha1", SHA1, "Alert")).await;
    assert_eq!(more.status, 400);
    assert!(more.body["error"]["message"].as_str().expect("text").contains("15000"));
    world.clock.advance(TimeDelta::minutes(31));
    assert_eq!(world.get("/api/indicators/$count", &token).await.body, json!(0));
    let more = world.post("/api/indicators", &token, indicator("FileSha1", SHA1, "Alert")).await;
    assert_eq!(more.status, 200, "{}", more.body);
    world.stop().await;
}

/// Rows of every kind that an indicator seeks raise its alert; one alert a machine and indicator.
#[tokio::test]
async fn arriving_rows_meet_indicators() {
    let world = World::start().await;
    let token = world.token_for(&["Ti.ReadWrite.All", "Alert.Read.All"]).await;
    let mut sensor = world.sensor("elm.tests.example").await;
    for (ty, value, action) in [
        ("FileSha1", SHA1, "Alert"),
        ("IpAddress", "198.51.100.0/24", "Audit"),
        ("DomainName", "bad.example", "Alert"),
        ("Url", "https://worse.example/path", "Alert"),
        ("CertificateThumbprint", "1111111111111111111111111111111111111111", "AlertAndBlock"),
        ("FileMd5", "22222222222222222222222222222222", "Block"),
    ] {
        let mut body = indicator(ty, value, action);
        body["title"] = format!("Seen {ty}").into();
        let made = world.post("/api/indicators", &token, body).await;
        assert_eq!(made.status, 200, "{}", made.body);
    }
    let at = world.clock.now().to_rfc3339();
    let row = |number: i64, more: Json| {
        let mut row = json!({"Timestamp": at, "ReportId": number});
        for (name, value) in more.as_object().expect("an object") {
            row[name] = value.clone();
        }
        row
    };
    let send = async |sensor: &mut TestSensor, first: i64| {
        sensor
            .send(json!({
                "DeviceProcessEvents": [
                    row(first, json!({"ActionType": "ProcessCreated", "FileName": "x", "SHA1": SHA1.to_uppercase()})),
                    row(first + 1, json!({"ActionType": "ProcessCreated", "FileName": "y", "MD5": "22222222222222222222222222222222"})),
                    row(first + 2, json!({"ActionType": "ProcessCreated", "FileName": "z", "SHA1": "0".repeat(40)})),
                ],
                "DeviceNetworkEvents": [
                    row(first + 3, json!({"ActionType": "ConnectionSuccess", "RemoteIP": "198.51.100.77"})),
                    row(first + 4, json!({"ActionType": "ConnectionSuccess", "RemoteUrl": "www.bad.example"})),
                    row(first + 5, json!({"ActionType": "ConnectionSuccess", "RemoteUrl": "http://worse.example/path/more"})),
                    row(first + 6, json!({"ActionType": "ConnectionSuccess", "RemoteUrl": "good.example"})),
                ],
                "DeviceFileCertificateInfo": [
                    row(first + 7, json!({"SHA1": "3".repeat(40), "SignerHash": "1".repeat(40)})),
                ],
            }))
            .await
    };
    send(&mut sensor, 1).await;
    // The answer to the rows came after the alerts were there.
    let titles = async || {
        let path =
            "/api/alerts?$filter=detectionSource eq 'CustomerTI'&$orderby=title&$expand=evidence";
        let list = world.get(path, &token).await.body;
        list["value"].as_array().expect("alerts").clone()
    };
    let first = titles().await;
    let names: Vec<&str> = first.iter().filter_map(|alert| alert["title"].as_str()).collect();
    assert_eq!(
        names,
        [
            "Seen CertificateThumbprint",
            "Seen DomainName",
            "Seen FileSha1",
            "Seen IpAddress",
            "Seen Url"
        ],
        "Block without generateAlert raises nothing"
    );
    assert_eq!(first[2]["machineId"], sensor.id());
    assert_eq!(first[2]["severity"], "Medium");
    assert_eq!(first[2]["recommendedAction"], "look");
    assert_eq!(first[2]["evidence"][0]["sha1"], SHA1);
    world.clock.advance(TimeDelta::minutes(1));
    send(&mut sensor, 100).await;
    let second = titles().await;
    assert_eq!(second.len(), 5, "further rows belong to the open alerts");
    // The hash that is deleted is sought no longer.
    let listed =
        world.get("/api/indicators?$filter=indicatorType eq 'FileSha1'", &token).await.body;
    let path = format!("/api/indicators/{}", listed["value"][0]["id"].as_str().expect("an id"));
    assert_eq!(world.call(Method::DELETE, &path, &token, None).await.status, 204);
    let mut other = world.sensor("oak.tests.example").await;
    send(&mut other, 1).await;
    let third = titles().await;
    assert_eq!(third.len(), 9, "{}", third.len());
    world.stop().await;
}
