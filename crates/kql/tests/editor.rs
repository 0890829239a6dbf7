//! Completion and hover, as an editor asks for them. `▮` is the cursor.

use vigie_kql::editor::{ItemKind, complete, hover};
use vigie_kql::plan::Column;
use vigie_kql::schema::Database;
use vigie_kql::types::Type;

fn database() -> Database {
    let column = |name: &str, ty| Column { name: name.to_owned(), ty };
    let mut database = Database::new("hunting");
    database.add_table(
        "DeviceEvents",
        vec![column("Timestamp", Type::DateTime), column("DeviceName", Type::String)],
    );
    database.add_table(
        "DeviceInfo",
        vec![column("DeviceName", Type::String), column("with space", Type::Long)],
    );
    database.add_function("SeenBy", "(seen:string) { DeviceInfo }");
    database
}

/// Labels of one kind at the cursor.
fn at(text: &str, kind: ItemKind) -> Vec<String> {
    let offset = text.find('▮').expect("a cursor");
    let text = text.replace('▮', "");
    let found = complete(&text, offset, &database());
    found.items.into_iter().filter(|item| item.kind == kind).map(|item| item.label).collect()
}

fn told(text: &str) -> Option<(ItemKind, String)> {
    let offset = text.find('▮').expect("a cursor");
    let found = hover(&text.replace('▮', ""), offset, &database())?;
    Some((found.kind, found.text))
}

#[test]
fn a_query_begins_with_tables_functions_and_names() {
    assert_eq!(at("Dev▮", ItemKind::Table), ["DeviceEvents", "DeviceInfo"]);
    assert_eq!(at("devicei▮", ItemKind::Table), ["DeviceInfo"]);
    assert_eq!(at("Se▮", ItemKind::Function), ["SeenBy"]);
    assert_eq!(at("let limit_ = 3; let rows = DeviceInfo; ro▮", ItemKind::Variable), ["rows"]);
    assert_eq!(at("let x = Device▮", ItemKind::Table), ["DeviceEvents", "DeviceInfo"]);
    assert_eq!(at("DeviceEvents | join (De▮", ItemKind::Table), ["DeviceEvents", "DeviceInfo"]);
}

#[test]
fn operators_follow_the_pipe() {
    let operators = at("DeviceEvents | sum▮", ItemKind::Operator);
    assert_eq!(operators, ["summarize"]);
    assert!(at("DeviceEvents | sum▮", ItemKind::Function).is_empty());
    let dashed = at("DeviceEvents | project-re▮", ItemKind::Operator);
    assert_eq!(dashed, ["project-rename", "project-reorder"]);
    let text = "DeviceEvents | project-re";
    let found = complete(text, text.len(), &database());
    assert_eq!(&text[found.replace.start..found.replace.end], "project-re");
}

#[test]
fn columns_are_those_of_the_operator_before() {
    assert_eq!(at("DeviceEvents | where ▮", ItemKind::Column), ["Timestamp", "DeviceName"]);
    let renamed = "DeviceEvents | project Host = DeviceName | where H▮ | count";
    assert_eq!(at(renamed, ItemKind::Column), ["Host"]);
    let inner = "DeviceEvents | join kind=inner (DeviceInfo | where ▮) on DeviceName";
    assert_eq!(at(inner, ItemKind::Column), ["DeviceName", "with space"]);
    let argument = "DeviceEvents | where strlen(▮";
    assert_eq!(at(argument, ItemKind::Column), ["Timestamp", "DeviceName"]);
    let variable = "let recent = DeviceEvents | where Timestamp > ago(1d); recent | project De▮";
    assert_eq!(at(variable, ItemKind::Column), ["DeviceName"]);
    let text = "DeviceInfo | project w";
    let found = complete(text, text.len(), &database());
    let quoted = found.items.iter().find(|item| item.label == "with space");
    assert_eq!(quoted.map(|item| item.insert.as_str()), Some("['with space']"));
}

#[test]
fn aggregates_and_plugins_stand_where_they_can() {
    assert!(at("DeviceEvents | summarize dco▮", ItemKind::Aggregate).contains(&"dcount".into()));
    assert!(at("DeviceEvents | where dco▮", ItemKind::Aggregate).is_empty());
    assert_eq!(at("DeviceEvents | evaluate bag_u▮", ItemKind::Plugin), ["bag_unpack"]);
}

#[test]
fn nothing_is_offered_in_strings_and_comments() {
    for text in ["DeviceEvents | where DeviceName == \"De▮", "DeviceEvents // De▮"] {
        let offset = text.find('▮').expect("a cursor");
        let found = complete(&text.replace('▮', ""), offset, &database());
        assert!(found.items.is_empty(), "{text}: {:?}", found.items.first());
    }
}

#[test]
fn hover_tells_types_and_calls() {
    let column = told("DeviceEvents | where Device▮Name == ''");
    assert_eq!(column, Some((ItemKind::Column, "DeviceName: string".into())));
    let table = told("Device▮Info | count").expect("a table");
    assert_eq!(table, (ItemKind::Table, "DeviceInfo\nDeviceName: string\nwith space: long".into()));
    let function = told("DeviceEvents | where str▮len(DeviceName) > 3").expect("a function");
    assert_eq!(function, (ItemKind::Function, "strlen(string: string or dynamic): long".into()));
    let (kind, aggregate) = told("DeviceEvents | summarize dco▮unt(DeviceName)").expect("known");
    assert_eq!(kind, ItemKind::Aggregate);
    assert!(aggregate.starts_with("dcount(expr: a scalar, accuracy"), "{aggregate}");
    let operator = told("DeviceEvents | project-a▮way DeviceName").expect("an operator");
    assert_eq!(operator, (ItemKind::Operator, "project-away operator".into()));
    assert_eq!(told("Se▮enBy('x')"), Some((ItemKind::Function, "SeenBy(seen:string)".into())));
    assert_eq!(told("DeviceEvents | where Nothing▮Such == 1"), None);
}

#[test]
fn any_cut_of_a_query_has_an_answer() {
    let text = "let x = materialize(DeviceEvents | where DeviceName has 'é–x'); x | join (DeviceInfo \
                | extend a = pack('b', \"c\")[0]) on $left.DeviceName == $right.DeviceName | evaluate \
                bag_unpack(a) // end";
    for offset in 0..=text.len() + 3 {
        complete(text, offset, &database());
        hover(text, offset, &database());
        if text.is_char_boundary(offset.min(text.len())) {
            complete(&text[..offset.min(text.len())], offset, &database());
        }
    }
}
