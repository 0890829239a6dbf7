use super::*;
use crate::LabConfig;
use crate::machine::fleet;
use vigie_contract::clock::Clock;

fn machines(count: usize) -> Vec<Machine> {
    fleet(&LabConfig::new("https://localhost", "", "", count)).unwrap()
}

#[test]
fn every_step_of_every_embedded_scenario_makes_a_row_of_its_table() {
    let now = Clock::default().now();
    for scenario in embedded_scenarios() {
        let machines = machines(3);
        let machine = machines.iter().find(|m| m.platform == scenario.platform).unwrap();
        let mut play = Play::new(scenario.clone(), 1, machine);
        let mut steps: Vec<usize> =
            play.timetable().iter().map(|happening| happening.step).collect();
        steps.dedup();
        assert!(!steps.is_empty());
        for step in steps {
            let (table, row) = play.row(step, machine, now);
            let columns = &vigie_contract::tables::table(&table).unwrap().columns;
            for (column, value) in &row.0 {
                assert!(columns.iter().any(|known| known.name == *column), "{table}.{column}");
                let text = value.as_str().unwrap_or_default();
                for placeholder in ["{user}", "{host}", "{ip}", "{domain}", "{number}"] {
                    assert!(!text.contains(placeholder), "{}: {text}", scenario.name);
                }
            }
            assert!(row.0["ActionType"].as_str().is_some_and(|action| !action.is_empty()));
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_machines_and_events() {
    let now = Clock::default().now();
    let rows = || {
        let mut rows = Vec::new();
        for machine in machines(6) {
            for scenario in machine.scenarios.clone() {
                let mut play = Play::new(scenario, 1, &machine);
                for happening in play.timetable() {
                    let (table, row) = play.row(happening.step, &machine, now);
                    rows.push(format!("{:.3} {table} {}", happening.at, serde_json::json!(row.0)));
                }
            }
        }
        rows
    };
    let first = rows();
    assert!(first.len() > 100);
    assert_eq!(first, rows());
}

#[test]
fn machines_differ_and_attacks_reach_some_of_them() {
    let machines = machines(60);
    let mut hosts: Vec<&str> = machines.iter().map(|machine| machine.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    assert_eq!(hosts.len(), 60);
    let attacked = machines.iter().filter(|machine| machine.scenarios.len() > 1).count();
    assert!((2..20).contains(&attacked), "{attacked}");
    assert!(machines.iter().all(|machine| !machine.scenarios.is_empty()));
}

#[test]
fn mistakes_in_a_scenario_are_named() {
    let scenario = |programs: &str, steps: &str| {
        format!("name: t\nsummary: s\nplatform: linux\nprograms: {programs}\nsteps: [{steps}]\n")
    };
    let cases = [
        (scenario("{}", "{at: 1x}"), "no time"),
        (scenario("{}", "{at: 1s, start: sh}"), "no program is called sh"),
        (scenario("{}", "{at: 1s}"), "either start or table"),
        (scenario("{}", "{at: 1s, table: Nope}"), "no table is called Nope"),
        (
            scenario("{}", "{at: 1s, table: DeviceFileEvents, row: {Folder: x}}"),
            "DeviceFileEvents has no column Folder",
        ),
        (scenario("{a: {path: /a, parent: b}, b: {path: /b, parent: a}}", ""), "its own ancestor"),
        (scenario("{}", "{at: 1s, unknown: 1}"), "unknown"),
    ];
    for (yaml, expected) in cases {
        let error = Scenario::parse(&yaml).unwrap_err().to_string();
        assert!(error.contains(expected), "{yaml}\n{error}");
    }
}
