use serde_json::json;
use switchback_config::parse_flag;

use super::*;
use crate::split::{Split, key_hash};

fn flag(text: &str) -> Flag {
    parse_flag(text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

fn said(flag: &Flag, key: Option<&str>, context: Value) -> (String, Value, Reason) {
    let start = Instant::now();
    let context = context.as_object().cloned().unwrap_or_default();
    let asker = Asker {
        key: key.map(|key| key_hash(key.as_bytes())),
        context: &context,
    };
    let answer = evaluate(flag, &Trust::new(start), start, asker).expect("an answer");
    (answer.variant.into(), answer.value.clone(), answer.reason)
}

#[test]
fn flag_says_its_default_to_everybody_and_off_while_it_is_not_in_use() {
    let on = flag("default: true");
    assert_eq!(
        said(&on, None, json!({})),
        ("on".into(), json!(true), Reason::Static)
    );
    let off = flag("{default: true, enabled: false}");
    assert_eq!(
        said(&off, None, json!({})),
        ("off".into(), json!(false), Reason::Disabled)
    );
    let text = flag("{variants: {red: '#f00', blue: {rgb: [0, 0, 255]}}, default: blue, off: red}");
    assert_eq!(
        said(&text, None, json!({})),
        ("blue".into(), json!({"rgb": [0, 0, 255]}), Reason::Static)
    );
    let unused = Flag {
        enabled: false,
        ..text
    };
    assert_eq!(
        said(&unused, None, json!({})),
        ("red".into(), json!("#f00"), Reason::Disabled)
    );
}

#[test]
fn share_of_keys_are_the_same_users_as_a_canary_with_this_share() {
    for (share, weights) in [
        ("5%", [95, 5]),
        ("0.1%", [999, 1]),
        ("50%", [1, 1]),
        ("33.3333%", [666_667, 333_333]),
    ] {
        let flag = flag(&format!("share: {share}"));
        let split = Split::new(&weights, 0);
        let mut on = 0;
        for user in 0..20_000 {
            let key = format!("user-{user}");
            let (variant, _, reason) = said(&flag, Some(&key), json!({}));
            assert_eq!(reason, Reason::Split);
            let canary = split.by_key(key_hash(key.as_bytes())) == 1;
            assert_eq!(variant == "on", canary, "{key} at {share}");
            on += u32::from(canary);
        }
        assert!(on > 0, "{share}");
    }
}

#[test]
fn shares_of_variants_add_up_and_the_rest_gets_the_default() {
    let flag = flag("{variants: {a: 1, b: 2, c: 3}, default: c, shares: {a: 20%, b: 30%}}");
    let mut counts = BTreeMap::<String, i32>::new();
    for user in 0..20_000 {
        *counts
            .entry(said(&flag, Some(&format!("u{user}")), json!({})).0)
            .or_default() += 1;
    }
    for (variant, expected) in [("a", 4_000), ("b", 6_000), ("c", 10_000)] {
        assert!((counts[variant] - expected).abs() < 300, "{counts:?}");
    }
}

#[test]
fn flag_with_shares_needs_a_key_and_one_that_is_off_does_not() {
    let start = Instant::now();
    let trust = Trust::new(start);
    let asker = Asker {
        key: None,
        context: &Map::new(),
    };
    let shared = flag("share: 5%");
    assert_eq!(evaluate(&shared, &trust, start, asker), Err(NoKey));
    let off = Flag {
        enabled: false,
        ..shared
    };
    assert!(evaluate(&off, &trust, start, asker).is_ok());
}

#[test]
fn first_rule_that_matches_decides() {
    let flag = flag(
        "rules:\n- {when: {plan: gold, country: [DE, AT]}, serve: true}\n- {when: {plan: gold}, share: 100%}\n- {when: {plan: {not: [free]}}, serve: false}\n",
    );
    let ask = |context: Value| {
        let (variant, _, reason) = said(&flag, Some("k"), context);
        (variant, reason)
    };
    assert_eq!(
        ask(json!({"plan": "gold", "country": "AT"})),
        ("on".into(), Reason::TargetingMatch)
    );
    assert_eq!(
        ask(json!({"plan": "gold", "country": "FR"})),
        ("on".into(), Reason::Split)
    );
    assert_eq!(
        ask(json!({"plan": "silver"})),
        ("off".into(), Reason::TargetingMatch)
    );
    assert_eq!(ask(json!({})), ("off".into(), Reason::TargetingMatch));
    assert_eq!(
        ask(json!({"plan": "free"})),
        ("off".into(), Reason::Default)
    );
}

#[test]
fn conditions_compare_texts_numbers_and_nothing_else() {
    for (condition, value, expected) in [
        ("5", json!(5.0), true),
        ("5", json!("5"), false),
        ("'5'", json!("5"), true),
        ("true", json!(true), true),
        ("true", json!("true"), false),
        ("{starts_with: a}", json!("abc"), true),
        ("{starts_with: b}", json!("abc"), false),
        ("{ends_with: '@example.com'}", json!("me@example.com"), true),
        ("{contains: b}", json!("abc"), true),
        ("{contains: b}", json!(5), false),
        ("{above: 17}", json!(17), false),
        ("{above: 17}", json!(17.5), true),
        ("{above: 17, below: 20}", json!(20), false),
        ("{below: -1}", json!(-2), true),
        ("{above: 17}", json!("18"), false),
        ("{not: [1, 2], above: 0}", json!(2), false),
        ("{not: [1, 2], above: 0}", json!(3), true),
        ("{is: [a, b]}", json!(null), false),
    ] {
        let flag = flag(&format!(
            "rules: [{{when: {{x: {condition}}}, serve: true}}]"
        ));
        let (variant, ..) = said(&flag, None, json!({"x": value}));
        assert_eq!(variant == "on", expected, "{condition} of {value}");
    }
}

#[test]
fn kill_switch_is_off_while_its_state_is_doubted_or_too_old() {
    let start = Instant::now();
    let (trust, switch, plain) = (
        Trust::new(start),
        flag("{kill_switch: true, max_age: 5s}"),
        flag("default: true"),
    );
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let ask = |flag: &Flag, now| {
        let asker = Asker {
            key: None,
            context: &Map::new(),
        };
        let answer = evaluate(flag, &trust, now, asker).expect("an answer");
        (answer.value.clone(), answer.reason)
    };
    let (on, closed) = ((json!(true), Reason::Static), (json!(false), Reason::Error));
    assert_eq!(ask(&switch, at(5)), on);
    assert_eq!(ask(&switch, at(5) + Duration::from_millis(1)), closed);
    assert_eq!(ask(&plain, at(3_600)), on, "a plain flag asks for no state");
    trust.confirm(at(3_600));
    assert_eq!(ask(&switch, at(3_605)), on);
    trust.doubt();
    assert_eq!(ask(&switch, at(3_600)), closed);
    assert_eq!(trust.age(at(3_600)), None);
    trust.confirm(at(3_606));
    assert_eq!(ask(&switch, at(3_606)), on);
    let off = Flag {
        enabled: false,
        ..switch
    };
    assert_eq!(ask(&off, at(3_606)), (json!(false), Reason::Disabled));
}

#[test]
fn header_names_each_flag_with_its_variant() {
    let now = Instant::now();
    let live = |name: &str, text: &str| (name.to_owned(), Arc::new(LiveFlag::new(flag(text))));
    let header = FlagHeader {
        header: "x-flags".into(),
        flags: vec![
            live("a", "share: 100%"),
            live("b", "{variants: {x: 1, y: 2}, default: y}"),
        ],
        trust: Trust::new(now),
    };
    assert_eq!(header.text(Some(7), now), "a=on, b=y");
    assert_eq!(header.text(None, now), "a=off, b=y");
    let told = Told::default();
    told.decide(None, None, now);
    assert!(told.tell(|told| told.is_none()));
    let header = Arc::new(header);
    told.decide(Some(&header), Some(7), now);
    assert_eq!(
        told.tell(|told| told.map(|(_, text)| text.to_owned())),
        Some("a=on, b=y".into())
    );
    told.decide(None, None, now);
    assert!(
        told.tell(|told| told.is_none()),
        "a service without flags tells none"
    );
}

#[test]
fn counts_stay_with_variants_that_stay() {
    let live = LiveFlag::new(flag("default: true"));
    live.count("on");
    live.count("on");
    live.count("gone");
    let next = live.with(flag("{variants: {on: 1, other: 2}, default: on}"));
    assert_eq!(
        (next.served("on"), next.served("other"), next.served("off")),
        (2, 0, 0)
    );
}
