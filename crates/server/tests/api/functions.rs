//! Saved functions: kept, called by queries and detections, refused where they are wrong.

use crate::support::World;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn saved_functions_are_called_by_queries_of_their_tenant() {
    let world = World::start().await;
    let admin = world.administration_token().await;
    let token = world.first_token().await;
    let base = format!("/admin/v1/tenants/{}/functions", world.first.tenant);
    let mut sensor = world.sensor("ash.tests.example").await;
    sensor.process(world.clock.now(), "strange", "strange --now").await;
    let starts = json!({
        "name": "StartsOf", "parameters": "name:string",
        "query": "DeviceProcessEvents | where FileName == name // any time",
    });
    let made = world.post(&base, &admin, starts.clone()).await;
    assert_eq!((made.status, &made.body["name"]), (201, &json!("StartsOf")), "{}", made.body);
    assert_eq!(world.post(&base, &admin, starts).await.status, 409);
    let named = json!({
        "name": "Named", "parameters": "T:(FileName:string)",
        "query": "T | where FileName in ((StartsOf('strange') | distinct FileName))",
    });
    assert_eq!(world.post(&base, &admin, named).await.status, 201, "functions call functions");

    let count = async |query: &str, token: &str| {
        let body = json!({ "Query": format!("{query} | count") });
        let answer = world.post("/api/advancedqueries/run", token, body).await;
        (answer.status, answer.body)
    };
    let (_, found) = count("StartsOf('strange')", &token).await;
    assert_eq!(found["Results"][0]["Count"], 1, "{found}");
    let (_, found) = count("DeviceProcessEvents | invoke Named()", &token).await;
    assert_eq!(found["Results"][0]["Count"], 1, "{found}");
    let (status, refused) = count("StartOf('strange')", &token).await;
    let text = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 400 && text.contains("Did you mean 'StartsOf'?"), "{refused}");

    let wrong = json!({"name": "Wrong", "query": "DeviceProcessEvents\n| where FileNam == ''"});
    let refused = world.post(&base, &admin, wrong).await;
    let text = refused.body["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(refused.status == 400 && text.contains("2:9") && text.contains("'FileName'"), "{text}");
    let long = json!({"name": "Long", "query": "// ".repeat(50_000)});
    assert_eq!(world.post(&base, &admin, long).await.status, 400);
    let taken = json!({"name": "DeviceInfo", "query": "print 1"});
    assert_eq!(world.post(&base, &admin, taken).await.status, 400);

    let path = format!("{base}/StartsOf");
    let renamed = json!({"name": "Starts", "query": "DeviceProcessEvents"});
    let renamed = world.call(Method::PUT, &path, &admin, Some(renamed)).await;
    assert_eq!(renamed.status, 200, "{}", renamed.body);
    assert_eq!(world.get(&path, &admin).await.status, 404);
    let (status, broken) = count("DeviceProcessEvents | invoke Named()", &token).await;
    assert_eq!(status, 400, "it calls what is gone: {broken}");
    let removed = world.call(Method::DELETE, &format!("{base}/Starts"), &admin, None).await;
    assert_eq!(removed.status, 204);
    assert_eq!(world.get(&base, &admin).await.body["value"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.get(&base, &token).await.status, 401, "tokens of the API change nothing here");
    world.stop().await;
}

#[tokio::test]
async fn functions_of_one_tenant_are_unknown_to_another() {
    let world = World::start().await;
    let admin = world.administration_token().await;
    let base = format!("/admin/v1/tenants/{}/functions", world.first.tenant);
    let mine = json!({"name": "Mine", "query": "DeviceInfo"});
    assert_eq!(world.post(&base, &admin, mine).await.status, 201);
    let body = json!({ "Query": "Mine() | count" });
    let (_, theirs, _) = world.second_tenant(&["AdvancedQuery.Read.All"]).await;
    let answer = world.post("/api/advancedqueries/run", &theirs, body.clone()).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let ours = world.first_token().await;
    let answer = world.post("/api/advancedqueries/run", &ours, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    world.stop().await;
}
