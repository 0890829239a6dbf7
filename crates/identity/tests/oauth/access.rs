//! What users may do at the API: directory roles, custom roles, device groups; and the document.

use crate::support::*;
use vigie_contract::administration::*;
use vigie_contract::operations::{OPERATIONS, operation};
use vigie_identity::Scope;

fn device_group(name: &str, rank: i64, tag: &str, groups: &[&str]) -> NewDeviceGroup {
    NewDeviceGroup {
        name: name.to_owned(),
        rank,
        rules: vec![DeviceRule {
            property: DeviceProperty::Tag,
            operator: DeviceOperator::Equals,
            value: tag.to_owned(),
        }],
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

fn role(name: &str, permissions: &[&str], groups: &[&str]) -> NewRbacRole {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NewRbacRole {
        display_name: name.to_owned(),
        permissions: list(permissions),
        groups: list(groups),
    }
}

async fn scope(world: &World, user: &User, id: &str) -> Scope {
    let access = world.directory.user_access(world.tenant, user.id).await.expect("read");
    access.expect("a user").scope(operation(id).expect("an operation"))
}

#[tokio::test]
async fn directory_roles_count_on_all_machines() {
    let world = World::start().await;
    let none = world.user("none", &[]).await;
    let reader = world.user("reader", &["Security Reader"]).await;
    let operator = world.user("operator", &["Security Operator"]).await;
    let admin = world.user("sec", &["Security Administrator"]).await;
    for (user, reads, isolates, tags) in [
        (&none, Scope::Refused, Scope::Refused, Scope::Refused),
        (&reader, Scope::All, Scope::Refused, Scope::Refused),
        (&operator, Scope::All, Scope::All, Scope::Refused),
        (&admin, Scope::All, Scope::All, Scope::All),
    ] {
        let name = &user.user_principal_name;
        assert_eq!(scope(&world, user, "machines.list").await, reads, "{name}");
        assert_eq!(scope(&world, user, "advancedQueries.run").await, reads, "{name}");
        assert_eq!(scope(&world, user, "machines.isolate").await, isolates, "{name}");
        assert_eq!(scope(&world, user, "machines.tags.set").await, tags, "{name}");
    }
    for operation in OPERATIONS.iter().filter(|o| !o.delegated_permissions.is_empty()) {
        assert_eq!(scope(&world, &admin, &operation.id).await, Scope::All, "{}", operation.id);
        assert_eq!(scope(&world, &none, &operation.id).await, Scope::Refused, "{}", operation.id);
    }
    // Taken away, they are gone at once.
    let change = UserChange { roles: Some(Vec::new()), ..UserChange::default() };
    let name = &admin.user_principal_name;
    world.directory.change_user("tests", world.tenant, name, &change).await.expect("changed");
    assert_eq!(scope(&world, &admin, "machines.list").await, Scope::Refused);
}

#[tokio::test]
async fn custom_roles_count_in_their_device_groups() {
    let world = World::start().await;
    let directory = &world.directory;
    let mira = directory.user(world.tenant, "mira@tests.example").await.expect("a user");
    let members = vec!["Mira@tests.example".to_owned()];
    let tier1 = NewGroup { display_name: "Tier 1".to_owned(), members };
    directory.put_group("tests", world.tenant, &tier1).await.expect("made");
    let other = NewGroup { display_name: "Tier 2".to_owned(), ..NewGroup::default() };
    directory.put_group("tests", world.tenant, &other).await.expect("made");
    let view = role("Viewers", &["ViewData"], &["Tier 1"]);
    directory.put_rbac_role("tests", world.tenant, &view).await.expect("made");
    let act = role("Responders", &["ActiveRemediationActions"], &["Tier 2"]);
    directory.put_rbac_role("tests", world.tenant, &act).await.expect("made");
    assert_eq!(scope(&world, &mira, "machines.list").await, Scope::All, "no device groups yet");
    assert_eq!(scope(&world, &mira, "machines.isolate").await, Scope::Refused);
    for group in [
        device_group("Plant", 1, "plant", &["Tier 1"]),
        device_group("Office", 2, "office", &["Tier 2"]),
        device_group("Open", 3, "open", &[]),
    ] {
        directory.put_device_group("tests", world.tenant, &group).await.expect("made");
    }
    let named = |names: &[&str]| Scope::Groups(names.iter().map(|n| (*n).to_owned()).collect());
    let expected = named(&["Plant", "Open", "UnassignedGroup"]);
    assert_eq!(scope(&world, &mira, "machines.list").await, expected);
    // The same name again replaces the group and keeps its number.
    let before = directory.device_groups(world.tenant).await.expect("read");
    let replaced = device_group("Office", 0, "office", &["Tier 1"]);
    let replaced = directory.put_device_group("tests", world.tenant, &replaced).await;
    assert_eq!(replaced.expect("replaced").id, before[1].id);
    let expected = named(&["Office", "Plant", "Open", "UnassignedGroup"]);
    assert_eq!(scope(&world, &mira, "machines.list").await, expected);
    directory.delete_rbac_role("tests", world.tenant, "Viewers").await.expect("deleted");
    assert_eq!(scope(&world, &mira, "machines.list").await, Scope::Refused);
    // What cannot be is refused.
    let unknown = role("x", &["Everything"], &[]);
    assert!(directory.put_rbac_role("tests", world.tenant, &unknown).await.is_err());
    let unknown = role("x", &["ViewData"], &["No such group"]);
    assert!(directory.put_rbac_role("tests", world.tenant, &unknown).await.is_err());
    let unassigned = device_group("UnassignedGroup", 1, "x", &[]);
    assert!(directory.put_device_group("tests", world.tenant, &unassigned).await.is_err());
    let nobody =
        NewGroup { display_name: "x".to_owned(), members: vec!["nobody@tests.example".to_owned()] };
    assert!(directory.put_group("tests", world.tenant, &nobody).await.is_err());
}

#[tokio::test]
async fn the_document_carries_the_directory() {
    let world = World::start().await;
    let customer = world.second_tenant().await;
    let mut registration = web_registration();
    registration.multi_tenant = true;
    registration.application_permissions = vec!["Alert.Read.All".to_owned()];
    let app = world.application(&["Machine.Read.All"], registration).await;
    let id = uuid::Uuid::try_parse(&app).expect("an id");
    world.consent(&app, &["Machine.Read"]).await;
    world.settings(|settings| settings.allow_password_grant = true).await;
    let change = ServicePrincipalChange {
        permissions: Some(vec!["Alert.Read.All".to_owned()]),
        ..ServicePrincipalChange::default()
    };
    let set = world.directory.change_service_principal("tests", customer, id, &change).await;
    set.expect("set");
    let federated = NewFederatedCredential {
        name: "ci".to_owned(),
        issuer: "https://ci.example".to_owned(),
        subject: "repo".to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        keys: Some(serde_json::json!({"keys": []})),
    };
    let added = world.directory.add_federated_credential("tests", world.tenant, id, &federated);
    added.await.expect("added");
    let members = vec!["mira@tests.example".to_owned()];
    let group = NewGroup { display_name: "Tier 1".to_owned(), members };
    world.directory.put_group("tests", world.tenant, &group).await.expect("made");
    let view = role("Viewers", &["ViewData"], &["Tier 1"]);
    world.directory.put_rbac_role("tests", world.tenant, &view).await.expect("made");
    let plant = device_group("Plant", 1, "plant", &["Tier 1"]);
    world.directory.put_device_group("tests", world.tenant, &plant).await.expect("made");
    let document = world.directory.export().await.expect("exported");
    let applied = world.directory.apply("tests", &document).await.expect("applied");
    assert!(applied.changes.is_empty(), "{:?}", applied.changes);
    // Another server becomes the same, but for what is secret.
    let other = World::start().await;
    other.directory.delete_tenant("tests", other.tenant).await.expect("deleted");
    let mut moved = document.clone();
    for user in moved.tenants.iter_mut().flat_map(|tenant| &mut tenant.users) {
        user.password = Some(PASSWORD.to_owned());
    }
    other.directory.apply("tests", &moved).await.expect("applied");
    let exported = other.directory.export().await.expect("exported");
    let json = |document: &Document| {
        let mut json = serde_json::to_value(document).expect("JSON");
        json["tenants"].as_array_mut().expect("tenants").sort_by_key(|t| t["id"].to_string());
        json
    };
    assert_eq!(json(&exported), json(&document));
    let again = other.directory.apply("tests", &moved).await.expect("applied");
    assert!(again.changes.is_empty(), "{:?}", again.changes);
    // Wrong somewhere, it changes nothing.
    let mut wrong = moved.clone();
    wrong.tenants[0].display_name = "Renamed".to_owned();
    wrong.tenants[0].roles.push(role("Others", &["ViewData"], &["No such group"]));
    assert!(other.directory.apply("tests", &wrong).await.is_err());
    assert_eq!(json(&other.directory.export().await.expect("exported")), json(&document));
}
