//! `$filter` and its like over lists, as real clients write them and as those who mean harm do.

use crate::administration::Lines;
use crate::support::{TestSensor, World};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};

pub const SHA1: &str = "0991a395da64e1c5fbe8732ed11e6be064081d9f";

/// A process that ran a known file and spoke to an address: the row's report id is 77.
pub fn event(world: &World) -> Json {
    json!({
        "Timestamp": world.clock.now().to_rfc3339(), "ReportId": 77,
        "ActionType": "ConnectionSuccess", "RemoteIP": "198.51.100.9", "RemotePort": 443,
        "RemoteUrl": "https://www.bad.example/x", "InitiatingProcessFileName": "curl",
        "InitiatingProcessFolderPath": "/usr/bin", "InitiatingProcessId": 4711,
        "InitiatingProcessSHA1": SHA1, "InitiatingProcessAccountName": "mira",
        "InitiatingProcessAccountDomain": "tests",
    })
}

/// An alert about [`event`].
pub async fn alert(world: &World, token: &str, sensor: &mut TestSensor, title: &str) -> Json {
    let event = event(world);
    sensor.send(json!({"DeviceNetworkEvents": [event]})).await;
    let body = json!({
        "machineId": sensor.id(), "severity": "High", "title": title, "description": "a test",
        "recommendedAction": "none", "category": "Execution", "eventTime": event["Timestamp"],
        "reportId": "77",
    });
    let raised = world.post("/api/alerts/CreateAlertByReference", token, body).await;
    assert_eq!(raised.status, 200, "{}", raised.body);
    raised.body
}

/// Text of requests that is never in the log.
const PAYLOAD: &str = "payload-of-a-caller";

async fn number(world: &World, token: &str, list: &str, filter: &str) -> usize {
    let filter: String =
        url::form_urlencoded::byte_serialize(filter.as_bytes()).collect::<String>();
    let answer = world.get(&format!("{list}?$filter={filter}"), token).await;
    assert_eq!(answer.status, 200, "{filter}: {}", answer.body);
    answer.body["value"].as_array().map_or(usize::MAX, Vec::len)
}

#[tokio::test]
async fn filters_reach_into_evidence_tags_and_addresses() {
    filter(World::start().await).await;
}

#[tokio::test]
async fn filters_reach_as_far_on_postgresql() {
    if let Some(world) = World::on_postgresql("filter_tests").await {
        filter(world).await;
    }
}

async fn filter(world: World) {
    let token = world.first_token().await;
    let mut sensor = world.sensor("elm.tests.example").await;
    alert(&world, &token, &mut sensor, "first").await;
    let now = world.clock.now();
    let stamp = |by: TimeDelta, form: &str| (now + by).format(form).to_string();
    let cases = [
        (format!("evidence/any(e: e/sha1 eq '{SHA1}')"), 1),
        (format!("Evidence/any(e:e/Sha1 eq '{}')", SHA1.to_uppercase()), 1),
        ("evidence/any(e: e/entityType eq 'Process' and e/processId ge 4711)".to_owned(), 1),
        ("evidence/any(e: e/entityType eq 'Process' and e/processId gt 4711)".to_owned(), 0),
        ("evidence/any(e: e/ipAddress in ('203.0.113.1', '198.51.100.9'))".to_owned(), 1),
        ("evidence/any(e: startswith(e/url,'https://www.bad'))".to_owned(), 1),
        ("evidence/all(e: e/entityType ne 'Registry')".to_owned(), 1),
        ("evidence/all(e: e/entityType ne 'Ip')".to_owned(), 0),
        ("evidence/any()".to_owned(), 1),
        ("not evidence/any(e: e/accountName eq 'mira')".to_owned(), 0),
        ("evidence/any(e: e/accountName eq 'mira' and title eq 'first')".to_owned(), 1),
        ("mitreTechniques/any(t: t eq 'T1059')".to_owned(), 0),
        ("contains(tolower(title),'FIRST') eq true".to_owned(), 1),
        ("startswith(title,'f') eq false".to_owned(), 0),
        ("tolower(severity) eq 'high' and length(title) eq 5".to_owned(), 1),
        ("concat(title,'!') eq 'first!' and 'High' eq severity".to_owned(), 1),
        ("alertCreationTime le now() and lastUpdateTime ge alertCreationTime".to_owned(), 1),
        ("resolvedTime eq null and assignedTo ne 'x'".to_owned(), 1),
        ("assignedTo in ('x', null)".to_owned(), 1),
        ("incidentId eq '999999' or investigationId ne 5".to_owned(), 1),
        // As clients write them.
        (
            stamp(
                -TimeDelta::hours(1),
                "alertCreationTime+gt+%Y-%m-%dT%H:%M:%S.123456789Z and ((status+eq+'New') or \
                 (status+eq+'Resolved')) and ((severity+eq+'Low') or (severity+eq+'High'))",
            ),
            1,
        ),
        (stamp(-TimeDelta::hours(1), "AlertCreationTime gt %Y-%m-%dT%H:%M:%S+00:00"), 1),
        (stamp(-TimeDelta::hours(1), "AlertCreationTime gt %Y-%m-%dT%H:%M:%S 00:00"), 1),
        (stamp(TimeDelta::days(2), "lastUpdateTime lt %Y-%m-%dZ"), 1),
        (stamp(-TimeDelta::hours(1), "lastUpdateTime ge datetime'%Y-%m-%dT%H:%M:%SZ'"), 1),
        ("severity+in+['High','Low']".to_owned(), 1),
        ("status eq New".to_owned(), 1),
    ];
    for (filter, expected) in &cases {
        assert_eq!(number(&world, &token, "/api/alerts", filter).await, *expected, "{filter}");
    }
    for (filter, expected) in [
        ("machineTags/any(tag: tag eq 'office')", 1),
        ("machineTags/any(tag: startswith(tag,'OFF'))", 1),
        ("machineTags/all(tag: tag eq 'office')", 1),
        ("machineTags/all(tag: tag ne 'office')", 0),
        ("ipAddresses/any(i: i/ipAddress eq '192.0.2.17' and i/operationalStatus eq 'Up')", 1),
        ("isAadJoined eq false and isPotentialDuplication eq false", 1),
        ("rbacGroupId eq 0 and rbacGroupName eq null", 1),
    ] {
        assert_eq!(number(&world, &token, "/api/machines", filter).await, expected, "{filter}");
    }
    world.stop().await;
}

#[tokio::test]
async fn lists_are_counted_ordered_and_chosen_from() {
    let world = World::start().await;
    let token = world.first_token().await;
    let mut sensor = world.sensor("elm.tests.example").await;
    let first = alert(&world, &token, &mut sensor, "first").await;
    world.clock.advance(TimeDelta::seconds(1));
    alert(&world, &token, &mut sensor, "second").await;
    let machine = sensor.id();
    for (path, number) in [
        ("/api/alerts/$count".to_owned(), "2"),
        ("/api/alerts/$count?$filter=title eq 'first'".to_owned(), "1"),
        ("/api/machines/$count?$top=0".to_owned(), "1"),
        (format!("/api/machines/{machine}/alerts/$count?$filter=status ne 'Resolved'"), "2"),
        (format!("/api/machines/{machine}/alerts/%24count?%24filter=title eq 'second'"), "1"),
        (format!("/api/machines/{machine}/logonusers/$count"), "1"),
        ("/api/machineactions/$count".to_owned(), "0"),
        ("/api/libraryfiles/$count".to_owned(), "0"),
        ("/api/investigations/$count".to_owned(), "0"),
    ] {
        let answer = world.get(&path, &token).await;
        assert_eq!((answer.status, answer.body.to_string()), (200, number.to_owned()), "{path}");
        assert!(answer.headers["content-type"].to_str().expect("text").starts_with("text/plain"));
    }
    let counted = world.get("/api/alerts?$count=true&$top=1&$orderby=title asc", &token).await.body;
    assert_eq!(counted["@odata.count"], 2);
    assert_eq!(counted["value"][0]["id"], first["id"]);
    assert_eq!(counted["@odata.nextLink"], Json::Null, "$top says how much is wanted");
    // Expanded and chosen at once: what is expanded is there.
    let path = "/api/alerts?$expand=evidence&$select=Title,status&$orderby=alertCreationTime+desc";
    let chosen = world.get(path, &token).await.body;
    let row = chosen["value"][0].as_object().expect("a row");
    let names: std::collections::BTreeSet<&str> = row.keys().map(String::as_str).collect();
    assert_eq!(names, ["evidence", "status", "title"].into());
    assert_eq!(row["title"], "second");
    assert!(row["evidence"].as_array().is_some_and(|evidence| evidence.len() == 4), "{row:?}");
    world.stop().await;
}

/// Rows that are skipped are those that come first, whichever way they are found.
#[tokio::test]
async fn a_page_behind_others_begins_where_they_end() {
    let world = World::start().await;
    skip(&world).await;
    // Both come from numbers kept beside the alerts, not from walking over these.
    let database = vigie_database::Database::open_file(&world.data.path().join("state.db")).await;
    let database = database.expect("opened");
    let more = "UPDATE alert_counts SET number = number + 7 WHERE seconds = 86400 AND \
                status = 'New' AND began = (SELECT MAX(began) FROM alert_counts WHERE seconds = 86400)";
    assert_eq!(database.execute(more, &[]).await.expect("changed"), 1);
    database.close().await;
    let token = world.first_token().await;
    assert_eq!(world.get("/api/alerts/$count", &token).await.body, json!(17));
    world.stop().await;
}

#[tokio::test]
async fn a_page_behind_others_begins_where_they_end_on_postgresql() {
    if let Some(world) = World::on_postgresql("skip_tests").await {
        skip(&world).await;
        world.stop().await;
    }
}

async fn skip(world: &World) {
    let mut sensor = world.sensor("elm.tests.example").await;
    // Several in one minute, others in the next, hours and days later.
    for seconds in [0, 1, 1, 70, 1, 4000, 1, 90_000, 1, 1] {
        world.clock.advance(TimeDelta::seconds(seconds));
        let token = world.first_token().await;
        sensor.token = sensor.renew(world).await.expect("a session");
        let title = format!("seen at {}", world.clock.now());
        alert(world, &token, &mut sensor, &title).await;
    }
    let token = world.first_token().await;
    let ids = async |path: &str| -> Vec<String> {
        let answer = world.get(path, &token).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let rows = answer.body["value"].as_array().expect("a list").clone();
        rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
    };
    let all = ids("/api/alerts").await;
    assert_eq!(all.len(), 10);
    let count = world.get("/api/alerts/$count", &token).await.body;
    assert_eq!(count, json!(10), "days add up");
    for skip in 0..12 {
        for options in ["", "&$filter=severity eq 'High'", "&$orderby=alertCreationTime desc"] {
            let page = ids(&format!("/api/alerts?$top=3&$skip={skip}{options}")).await;
            let expected: Vec<String> = all.iter().skip(skip).take(3).cloned().collect();
            assert_eq!(page, expected, "behind {skip}{options}");
        }
    }
    // Some move among what is counted: one by one, and many at once.
    let change = json!({"status": "Resolved", "assignedTo": "someone@tests.example"});
    for id in [&all[1], &all[4]] {
        let path = format!("/api/alerts/{id}");
        let answer = world.call(Method::PATCH, &path, &token, Some(change.clone())).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let change = json!({"alertIds": [all[0], all[8], all[4]], "status": "InProgress"});
    assert_eq!(world.post("/api/alerts/batchUpdate", &token, change).await.status, 200);
    let list = world.get("/api/alerts", &token).await.body["value"].clone();
    let list = list.as_array().expect("a list");
    let created = |at: usize| list[at]["alertCreationTime"].as_str().expect("a time").to_owned();
    let all_but = |statuses: &[&str], since: usize, until: usize| -> Vec<String> {
        let wanted = list.iter().enumerate().filter(|(at, alert)| {
            (since..until).contains(at) && !statuses.iter().any(|status| alert["status"] == *status)
        });
        wanted.map(|(_, alert)| alert["id"].as_str().expect("an id").to_owned()).collect()
    };
    // Newest first: what comes before in time stands behind.
    let (newer, middle, older) = (created(1), created(4), created(7));
    for (filter, expected) in [
        ("status eq 'Resolved'".to_owned(), all_but(&["New", "InProgress"], 0, 10)),
        ("status ne 'New' and severity in ('High','Low')".to_owned(), all_but(&["New"], 0, 10)),
        ("not (status eq 'InProgress')".to_owned(), all_but(&["InProgress"], 0, 10)),
        (
            "status eq 'Resolved' or title eq 'none'".to_owned(),
            all_but(&["New", "InProgress"], 0, 10),
        ),
        ("severity eq 'Low'".to_owned(), Vec::new()),
        (format!("alertCreationTime lt {newer}"), all_but(&[], 2, 10)),
        (format!("{middle} ge alertCreationTime"), all_but(&[], 4, 10)),
        (
            format!(
                "alertCreationTime gt {older} and status eq 'New' and alertCreationTime le {middle}"
            ),
            all_but(&["InProgress", "Resolved"], 4, 7),
        ),
        (format!("alertCreationTime eq {middle}"), all_but(&[], 4, 5)),
        (
            "alertCreationTime le now() and status eq 'New'".to_owned(),
            all_but(&["InProgress", "Resolved"], 0, 10),
        ),
    ] {
        let count = world.get(&format!("/api/alerts/$count?$filter={filter}"), &token).await.body;
        assert_eq!(count, json!(expected.len()), "{filter}");
        for skip in 0..=expected.len() {
            let page = ids(&format!("/api/alerts?$top=2&$skip={skip}&$filter={filter}")).await;
            let expected: Vec<String> = expected.iter().skip(skip).take(2).cloned().collect();
            assert_eq!(page, expected, "behind {skip} of {filter}");
        }
    }
}

/// What arrives while a client walks neither repeats nor hides a row that was there.
#[tokio::test]
async fn pages_follow_each_other_while_rows_arrive() {
    let world = World::start().await;
    let token = world.first_token().await;
    for name in ["a", "b", "c", "d", "e"] {
        world.sensor(&format!("{name}.tests.example")).await;
    }
    for options in ["$orderby=computerDnsName desc&", "", "$orderby=version,aadDeviceId desc&"] {
        let mut path = format!("/api/v1.0/machines?{options}pageSize=2&$count=true");
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let answer = world.get(&path, &token).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            for row in answer.body["value"].as_array().expect("rows") {
                seen.push(row["computerDnsName"].as_str().expect("a name").to_owned());
            }
            pages += 1;
            world.sensor(&format!("{options}{pages}.new.example")).await;
            let Some(next) = answer.body["@odata.nextLink"].as_str() else { break };
            assert!(next.starts_with(&world.url) && next.contains("/api/v1.0/machines?"), "{next}");
            path = next[world.url.len()..].to_owned();
        }
        let old: Vec<&String> =
            seen.iter().filter(|name| name.ends_with(".tests.example")).collect();
        assert_eq!(old.len(), 5, "{options}: {seen:?}");
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "{options}: {seen:?}");
    }
    let broken = world.get("/api/machines?$skiptoken=abc", &token).await;
    assert_eq!((broken.status, broken.body["error"]["code"].as_str()), (400, Some("ODataError")));
    world.stop().await;
}

#[tokio::test]
async fn refused_options_name_what_and_where() {
    let world = World::start().await;
    let token = world.first_token().await;
    for (options, named) in [
        ("$filter=year(alertCreationTime) eq 2024", "'year' at position 0"),
        ("$filter=title eq 'a' and geo.distance(title,title) lt 1", "position 17"),
        ("$filter=evidence/any(e: e/color eq 'red')", "color"),
        ("$filter=title/any(e: e eq 'red')", "no collection"),
        ("$filter=evidence eq 'x'", "any"),
        ("$filter=title", "operator"),
        ("$filter=title eq 'a' banana", "banana"),
        ("$filter=title eq 'a')", "position 12"),
        ("$filter=incidentId eq 'x'", "incidentId"),
        ("$filter=severity gt alertCreationTime", "position 0"),
        ("$filter=contains(title)", "two arguments"),
        ("$filter='a' eq 'a'", "position 0"),
        ("$orderby=evidence", "collection"),
        ("$orderby=title upwards", "upwards"),
        ("$count=perhaps", "perhaps"),
        ("$expand=evidence($top=1)", "evidence($top=1)"),
        ("$top=1&$top=2", "more than once"),
        ("$search=x", "$search"),
    ] {
        let refused = world.get(&format!("/api/alerts?{options}"), &token).await;
        let error = &refused.body["error"];
        assert_eq!((refused.status, &error["code"]), (400, &json!("ODataError")), "{options}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(named), "{options}: {message}");
    }
    world.stop().await;
}

#[tokio::test]
async fn hostile_requests_are_refused_quickly_and_not_logged() {
    let lines = Lines::gather("info,vigie_server=trace,vigie_identity=trace,vigie_hunting=trace");
    tracing::info!("the log is gathered");
    let world = World::start().await;
    let token = world.first_token().await;
    // As quick as a plain answer, give or take the machine.
    let patience = std::time::Duration::from_secs(5);
    let many = vec!["a eq 1"; 2100].join(" or ");
    let deep = format!("{}title eq 'a'{}", "(".repeat(9000), ")".repeat(9000));
    for (name, path) in [
        ("long", format!("/api/alerts?$filter={PAYLOAD} eq '{}'", "x".repeat(60_000))),
        ("many", format!("/api/alerts?$filter={many}")),
        ("deep", format!("/api/alerts?$filter={deep}")),
        ("not", format!("/api/alerts?$filter={}title eq 'a'", "not ".repeat(5000))),
        ("calls", format!("/api/alerts?$filter={}", "tolower(".repeat(5000))),
        ("no UTF-8", "/api/alerts?$filter=title eq '%ff%fe'".to_owned()),
        ("no UTF-8 in the path", "/api/alerts/%ff%fe".to_owned()),
        ("a zero byte", "/api/alerts?$filter=title eq '%00'".to_owned()),
        ("a large number", "/api/alerts?$top=99999999999999999999999".to_owned()),
        ("a large skip", format!("/api/alerts?$skip={}", u64::MAX)),
    ] {
        let began = std::time::Instant::now();
        let refused = world.get(&path, &token).await;
        assert!(began.elapsed() < patience, "{name}: {:?}", began.elapsed());
        assert!((400..500).contains(&refused.status), "{name}: {}", refused.status);
        let message = refused.body["error"]["message"].as_str();
        assert!(message.is_some_and(|text| text.len() > 20), "{name}: {}", refused.body);
    }
    // Many conditions that are allowed are no deep expression for the database.
    let many = vec!["title eq 'a'"; 1500].join(" or ");
    assert_eq!(world.get(&format!("/api/alerts?$filter={many}"), &token).await.status, 200);

    let body = |text: String| {
        world
            .request(Method::PATCH, "/api/alerts/none")
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .body(text)
    };
    for (name, text, status) in [
        ("10 MB", format!("{{\"comment\":\"{PAYLOAD}{}\"}}", "x".repeat(10 << 20)), 413),
        ("no text", format!("{{\"{PAYLOAD}\":\u{1}}}"), 400),
        ("deep", format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000)), 400),
        ("twice", r#"{"status":"New","Status":"Resolved"}"#.to_owned(), 400),
        ("an unknown status", format!("{{\"status\":\"{PAYLOAD}\"}}"), 400),
        ("the same twice", r#"{"status":"New","status":"Resolved"}"#.to_owned(), 400),
        ("a wrong type", r#"{"status":["New"]}"#.to_owned(), 400),
        ("a list", "[]".to_owned(), 400),
        ("cut", r#"{"status":"N"#.to_owned(), 400),
        ("an id that is none", r#"{"status":"New"}"#.to_owned(), 404),
    ] {
        let began = std::time::Instant::now();
        let refused = crate::support::answer(body(text)).await;
        assert!(began.elapsed() < patience, "{name}: {:?}", began.elapsed());
        assert_eq!(refused.status, status, "{name}: {}", refused.body);
        assert!(refused.body["error"]["message"].is_string(), "{name}");
    }
    let bytes = [b"{\"comment\":\"".as_slice(), b"\xff\xfe\"}"].concat();
    let request = world.request(Method::PATCH, "/api/alerts/none").bearer_auth(&token);
    let request = request.header("content-type", "application/json").body(bytes);
    let refused = crate::support::answer(request).await;
    assert_eq!(
        (refused.status, &refused.body["error"]["code"]),
        (400, &json!("InvalidRequestBody"))
    );
    world.stop().await;
    let log = lines.text();
    assert!(log.contains("the log is gathered"), "{log}");
    assert!(!log.contains(PAYLOAD) && !log.contains(&"x".repeat(50)), "{log}");
}
