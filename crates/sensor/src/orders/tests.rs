use super::*;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use chrono::TimeDelta;
use uuid::Uuid;

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn enrolled() -> Enrolled {
    Enrolled {
        tenant_id: Uuid::nil(),
        machine_id: "a".repeat(40),
        order_key: BASE64.encode(key(1).public_key().as_ref()),
    }
}

#[test]
fn only_true_orders_are_taken() {
    let now = Clock::default().now();
    let good = order_for_tests(&"a".repeat(40), now, Command::Unisolate {});
    let signed = sign_for_tests(&key(1), &good);
    assert_eq!(verify(&signed, &enrolled(), now).unwrap(), good);

    let forged = sign_for_tests(&key(2), &good);
    assert_eq!(verify(&forged, &enrolled(), now), Err(BadOrder::Signature));

    let altered = SignedOrder { order: signed.order.replace("tester", "nobody"), ..signed.clone() };
    assert_eq!(verify(&altered, &enrolled(), now), Err(BadOrder::Signature));

    let other = sign_for_tests(&key(1), &order_for_tests("b", now, Command::Unisolate {}));
    assert_eq!(verify(&other, &enrolled(), now), Err(BadOrder::OtherMachine("b".to_owned())));

    let late = now + TimeDelta::hours(2);
    assert_eq!(verify(&signed, &enrolled(), late), Err(BadOrder::Expired(good.expires_at)));

    let text = "{\"type\":\"unknown\"}".to_owned();
    let signature = BASE64.encode(key(1).sign(text.as_bytes()).as_ref());
    let unknown = SignedOrder { order: text, signature };
    assert!(matches!(verify(&unknown, &enrolled(), now), Err(BadOrder::Unreadable(_))));
}

#[test]
fn without_permission_nothing_is_done_and_the_error_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let isolation = Arc::new(Isolation::new(folder.path(), "https://127.0.0.1:1", vec![]).unwrap());
    let executor = Executor { allow_response: false, isolation };
    let result = executor.execute(&Command::Isolate { isolation_type: IsolationType::Full });
    assert_eq!(result.status, OrderStatus::Failed);
    assert!(result.error.unwrap().contains("--allow-response"));
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}
