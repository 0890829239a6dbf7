//! The live response library.

use crate::support::World;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn files_are_uploaded_listed_replaced_and_deleted() {
    let world = World::start().await;
    let token = world.token_for(&["Library.Manage"]).await;
    let parts = [("Description", "looks"), ("ParametersDescription", "a path"), ("Other", "x")];
    let made = world.upload(&token, "look.sh", b"echo one", &parts).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(made.body["fileName"], "look.sh");
    assert_eq!(made.body["description"], "looks");
    assert_eq!(
        (&made.body["hasParameters"], &made.body["createdBy"]),
        (&json!(true), &json!("tests"))
    );
    assert_eq!(made.body["parametersDescription"], "a path");
    let hash = made.body["sha256"].as_str().expect("a hash").to_owned();
    assert_eq!(hash.len(), 64);

    let again = world.upload(&token, "look.sh", b"echo two", &[]).await;
    assert_eq!(again.status, 400, "{}", again.body);
    let no = world.upload(&token, "look.sh", b"echo two", &[("OverrideIfExists", "maybe")]).await;
    assert_eq!(no.status, 400);
    let replaced = [("overrideIfExists", "true"), ("HasParameters", "false")];
    let replaced = world.upload(&token, "look.sh", b"echo two", &replaced).await;
    assert_eq!(replaced.status, 200);
    assert_ne!(replaced.body["sha256"], hash.as_str());
    assert!(replaced.body.get("parametersDescription").is_none());
    let listed = world.get("/api/libraryfiles", &token).await.body;
    assert_eq!(listed["value"].as_array().expect("a list").len(), 1);
    assert!(listed["@odata.context"].as_str().expect("a context").ends_with("#LibraryFiles"));

    // Another tenant has its own.
    let (_, other, _) = world.second_tenant(&["Library.Manage"]).await;
    assert_eq!(world.get("/api/libraryfiles", &other).await.body["value"], json!([]));
    let path = "/api/libraryfiles/look.sh";
    assert_eq!(world.call(Method::DELETE, path, &other, None).await.status, 404);
    assert_eq!(world.call(Method::DELETE, path, &token, None).await.status, 204);
    assert_eq!(world.call(Method::DELETE, path, &token, None).await.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn bad_uploads_are_refused() {
    let world = World::start().await;
    let token = world.token_for(&["Library.Manage"]).await;
    for name in ["", "..", "a/b", "..\\\\x"] {
        assert_eq!(world.upload(&token, name, b"x", &[]).await.status, 400, "{name}");
    }
    let largest = vec![b'x'; 20 << 20];
    assert_eq!(world.upload(&token, "large", &largest, &[]).await.status, 200);
    let larger = vec![b'x'; (20 << 20) + 1];
    assert_eq!(world.upload(&token, "larger", &larger, &[]).await.status, 400);
    let json = world.post("/api/libraryfiles", &token, json!({"file": "x"})).await;
    assert_eq!(json.status, 415);
    let stranger = world.token_for(&["Machine.Read.All"]).await;
    assert_eq!(world.upload(&stranger, "x", b"x", &[]).await.status, 403);
    world.stop().await;
}
