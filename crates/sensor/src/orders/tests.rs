use super::*;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use chrono::TimeDelta;
use uuid::Uuid;
use vigie_contract::clock::Clock;

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

    let sign = |text: &str| SignedOrder {
        order: text.to_owned(),
        signature: BASE64.encode(key(1).sign(text.as_bytes()).as_ref()),
    };
    let nothing = sign("{\"type\":\"unknown\"}");
    assert!(matches!(verify(&nothing, &enrolled(), now), Err(BadOrder::Unreadable(_))));
    // An order of a newer server is answered, so that whoever gave it learns why nothing happens.
    let newer = sign(&signed.order.replace("Unisolate", "Teleport"));
    match verify(&newer, &enrolled(), now) {
        Err(BadOrder::Unknown { id, .. }) => assert_eq!(id, good.id),
        other => panic!("{other:?}"),
    }
    let newer = sign(&signed.order.replace("Unisolate", "Teleport").replace("aaaa", "bbbb"));
    assert!(matches!(verify(&newer, &enrolled(), now), Err(BadOrder::Unreadable(_))));
}
