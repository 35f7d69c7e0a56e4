//! The record of what changed, and going back to it.

use serde_json::{Value, json};

use crate::support::{Load, Origin, Protocol, Proxy, blue_green, eventually};

async fn origins() -> (Origin, Origin) {
    (Origin::start().await, Origin::start().await)
}

async fn restore(proxy: &Proxy, revision: u64, body: Value) -> Value {
    let path = format!("/v1/revisions/{revision}/restore");
    let answer = proxy.post(&path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn revision(proxy: &Proxy) -> u64 {
    proxy.service().await["revision"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_under_load_fails_nothing_lifts_no_block_and_survives_a_kill() {
    let (blue, green) = origins().await;
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(40, 60).await;
    let both = revision(&proxy).await;
    proxy
        .post(
            "/v1/services/shop/switch",
            json!({"to": "green", "reason": "new shop"}),
        )
        .await;
    let green_only = revision(&proxy).await;
    let load = Load::start(proxy.web, Protocol::Http1, 8);
    let load2 = Load::start(proxy.web, Protocol::Http2, 4);
    for round in 0..20 {
        let to = if round % 2 == 0 { both } else { green_only };
        let answer = restore(&proxy, to, json!({"reason": "back and forth"})).await;
        assert_eq!(answer["changed"], true, "{answer}");
        let service = &answer["services"][0];
        let expected = if to == both {
            json!({"blue": 40, "green": 60})
        } else {
            json!({"blue": 0, "green": 100})
        };
        assert_eq!(service["weights"], expected);
        assert!(answer["applied_in_us"].as_u64().unwrap() > 0);
    }
    // The last restore took all weight from blue: what it says blue has begun is all blue ever gets.
    let answer = restore(&proxy, green_only, json!({})).await;
    assert_eq!(
        (&answer["changed"], &answer["unchanged"]),
        (&json!(false), &json!(["shop"]))
    );
    let answer = restore(&proxy, both, json!({})).await;
    assert_eq!(answer["changed"], true);
    let seen = load.done();
    eventually("both serve", || load.done() > seen + 200);
    let answer = restore(&proxy, green_only, json!({})).await;
    let begun = answer["services"][0]["begun"]["blue"].as_u64().unwrap();
    let seen = load.done();
    eventually("traffic goes on", || load.done() > seen + 200);
    let done = load.finish().await + load2.finish().await;
    assert_eq!(
        blue.received(),
        begun,
        "nothing began at blue after the answer"
    );
    println!("24 restores under {done} requests: 0 failed");

    // Green is rolled back and blocked; a state in which it served does not bring it back.
    proxy
        .post("/v1/services/shop/rollback", json!({"reason": "broken"}))
        .await;
    let dry = proxy
        .post(
            &format!("/v1/revisions/{both}/restore?dry_run=true"),
            json!({}),
        )
        .await
        .json();
    assert_eq!(
        (&dry["dry_run"], &dry["changed"]),
        (&json!(true), &json!(false)),
        "{dry}"
    );
    let answer = restore(&proxy, both, json!({})).await;
    assert_eq!(answer["changed"], false, "{answer}");
    let conflict = answer["conflicts"][0]["reason"].as_str().unwrap();
    assert!(
        conflict.contains("blocked by admin") && conflict.contains("broken"),
        "{conflict}"
    );
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert_eq!(service["backends"]["green"]["blocked"]["reason"], "broken");

    // Allowed again, it comes back, and stays through a kill.
    proxy
        .post("/v1/services/shop/backends/green/unblock", Value::Null)
        .await;
    assert_eq!(restore(&proxy, both, json!({})).await["changed"], true);
    let before = proxy.service().await;
    proxy.crash_and_restart();
    let after = proxy.service().await;
    assert_eq!(after["weights"], json!({"blue": 40, "green": 60}));
    assert_eq!(after["revision"], before["revision"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_on_record_with_who_when_why_and_how() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut proxy = Proxy::start(&config);
    let (code, _, err) = proxy.cli(&["weights", "shop", "blue=95", "green=5", "--reason", "try 2"]);
    assert_eq!(code, 0, "{err}");
    let first = proxy.get("/v1/revisions/1").await;
    for (field, value) in [
        ("by", "admin"),
        ("via", "api"),
        ("action", "weights"),
        ("reason", "try 2"),
    ] {
        assert_eq!(first[field], value, "{first}");
    }
    let how = first["how"].as_str().unwrap();
    assert!(
        how.starts_with("PUT /v1/services/shop/weights by switchback/"),
        "{how}"
    );
    assert!(first["at"].as_str().unwrap().parse::<String>().is_ok());
    assert_eq!(
        first["differences"],
        json!([
            {"service": "shop", "field": "weights.blue", "before": 100, "after": 95},
            {"service": "shop", "field": "weights.green", "before": 0, "after": 5},
        ])
    );
    // A new file says what is new in it, whether the process sees it at once or at its next start.
    proxy.write_config(&config.replace("blue: 100, green: 0", "blue: 80, green: 20"));
    proxy.post("/v1/reload", Value::Null).await;
    let reload = proxy.get("/v1/revisions/2").await;
    assert_eq!(
        (&reload["via"], &reload["action"]),
        (&json!("file"), &json!("reload"))
    );
    assert!(
        reload["how"].as_str().unwrap().ends_with("switchback.yaml"),
        "{reload}"
    );
    let notes = reload["notes"].to_string();
    assert!(
        notes.contains("file: services.shop.weights.green: 0 -> 20"),
        "{notes}"
    );
    assert!(notes.contains("win over those set at run time"), "{notes}");
    proxy.weights(50, 50).await;
    proxy.signal(rustix::process::Signal::KILL);
    proxy.wait();
    proxy.write_config(&config.replace("blue: 100, green: 0", "blue: 70, green: 30"));
    proxy.start_again();
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 70, "green": 30}),
        "the file wins"
    );
    let start = proxy.get("/v1/revisions/4").await;
    assert_eq!(
        (&start["via"], &start["by"]),
        (&json!("start"), &json!("switchback"))
    );
    assert!(
        start["notes"]
            .to_string()
            .contains("services.shop.weights.green: 20 -> 30"),
        "{start}"
    );
    assert_eq!(start["differences"][0]["before"], 50, "{start}");
    // Nothing changed: nothing is recorded.
    proxy.crash_and_restart();
    assert_eq!(revision(&proxy).await, 4);
    // Keys that touch no service are on record as well.
    proxy.signal(rustix::process::Signal::KILL);
    proxy.wait();
    let other = config.replace("blue: 100, green: 0", "blue: 70, green: 30");
    proxy.write_config(&other.replace("routes:", "limits: {keep_alive_timeout: 50s}\nroutes:"));
    proxy.start_again();
    let start = proxy.get("/v1/revisions/5").await;
    assert!(
        start["notes"]
            .to_string()
            .contains("limits.keep_alive_timeout"),
        "{start}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stable_that_the_file_changed_while_nobody_ran_is_on_trial() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let mut proxy = Proxy::start(&config);
    proxy.signal(rustix::process::Signal::KILL);
    proxy.wait();
    let switched = config
        .replace("stable: blue", "stable: green")
        .replace("blue: 100, green: 0", "blue: 0, green: 100");
    proxy.write_config(&switched);
    proxy.start_again();
    let service = proxy.service().await;
    assert_eq!(
        (&service["stable"], &service["previous"]),
        (&json!("green"), &json!("blue"))
    );
    assert_eq!(service["on_trial"]["backend"], "green");
    // The state before that can be had back.
    let answer = restore(&proxy, 0, json!({})).await;
    assert_eq!(
        answer["services"][0]["weights"],
        json!({"blue": 100, "green": 0}),
        "{answer}"
    );
    assert_eq!(proxy.service().await["stable"], "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_states_are_compared_and_restored_from_the_command_line() {
    let (blue, green) = origins().await;
    let proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(90, 10).await;
    proxy.weights(50, 50).await;
    let body = json!({"version": "3", "endpoints": [green.url()], "force": true});
    proxy
        .api("PUT", "/v1/services/shop/backends/green", body)
        .await;
    let cli = |arguments: &[&str]| {
        let (code, out, err) = proxy.cli(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    };
    let history = cli(&["history", "shop"]);
    assert!(
        history.contains("weights are blue=50 green=50"),
        "{history}"
    );
    assert_eq!(
        cli(&["history", "shop", "--limit", "1"])
            .matches("weights are")
            .count(),
        0
    );
    assert!(!cli(&["history", "other"]).contains("weights are"));
    let detail = cli(&["history", "--revision", "2"]);
    assert!(
        detail.contains("- weights.blue: 90\n  + weights.blue: 50"),
        "{detail}"
    );
    let diff = cli(&["diff", "1"]);
    assert!(
        diff.contains("- backends.green.version: 2\n  + backends.green.version: 3"),
        "{diff}"
    );
    assert!(diff.contains("+ weights.green: 50"), "{diff}");
    let diff = cli(&["diff", "0", "1"]);
    assert!(
        diff.contains("+ weights.green: 10") && !diff.contains("version"),
        "{diff}"
    );
    assert!(cli(&["diff", "3"]).contains("no difference"));
    let diff: Value = serde_json::from_str(&cli(&["diff", "2", "1", "-o", "json"])).unwrap();
    assert_eq!(
        diff["differences"][0],
        json!({"service": "shop", "field": "weights.blue", "before": 50, "after": 90})
    );

    let (code, _, why) = proxy.cli(&["restore", "1", "--dry-run"]);
    assert!(
        code == 75 && why.contains("nothing is known of the endpoints"),
        "another label is another version, and nobody has probed it: {code} {why}"
    );
    let plan = cli(&["restore", "1", "--dry-run", "--force"]);
    assert!(
        plan.contains("would change") && plan.contains("+ weights.green: 10"),
        "{plan}"
    );
    assert!(plan.contains("+ backends.green.version: 2"), "{plan}");
    assert_eq!(revision(&proxy).await, 3, "a dry run changes nothing");
    let done = cli(&[
        "restore",
        "1",
        "shop",
        "--force",
        "--reason",
        "as yesterday",
    ]);
    assert!(done.contains("blue=90 green=10"), "{done}");
    let service = proxy.service().await;
    assert_eq!(service["backends"]["green"]["version"], "2");
    assert_eq!(
        service["override"]["backends"],
        json!({}),
        "the file says so anyway"
    );
    let record = proxy.get("/v1/revisions/4").await;
    assert_eq!(
        (&record["action"], &record["reason"]),
        (&json!("restore"), &json!("as yesterday"))
    );
    assert!(cli(&["restore", "1"]).contains("everything is as it was"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restores_that_cannot_be_are_refused_and_change_nothing() {
    let (blue, green) = origins().await;
    let proxy = Proxy::blue_green(
        &blue,
        &green,
        "health: {path: /healthz, interval: 50ms, fall: 1, rise: 1}",
    );
    proxy.weights(50, 50).await;
    let switched = proxy
        .post("/v1/services/shop/switch", json!({"to": "green"}))
        .await;
    assert_eq!(switched.status, 200, "{}", switched.text());
    blue.answer_with(500);
    crate::support::eventually_async("blue is unhealthy", || async {
        proxy.service().await["backends"]["blue"]["health"] == "unhealthy"
    })
    .await;
    let path = "/v1/revisions/1/restore";
    for (path, body, status, code) in [
        (path, json!({}), 409, "target_unhealthy"),
        (path, json!({"service": "none"}), 404, "unknown_service"),
        (path, json!({"services": []}), 400, "invalid_body"),
        ("/v1/revisions/9/restore", json!({}), 404, "not_found"),
        ("/v1/revisions/x/restore", json!({}), 400, ""),
    ] {
        let answer = proxy.post(path, body.clone()).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        if !code.is_empty() {
            assert_eq!(answer.json()["code"], code);
        }
    }
    assert_eq!(revision(&proxy).await, 2);
    let stale = proxy.cli(&["restore", "1", "--force", "--if-revision", "1"]);
    assert_eq!(stale.0, 75, "{stale:?}");
    assert_eq!(
        restore(&proxy, 1, json!({"force": true})).await["changed"],
        true
    );
    assert_eq!(proxy.service().await["stable"], "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_long_ago_get_no_traffic_before_they_are_known_to_work() {
    let (blue, green) = origins().await;
    let old = Origin::start().await;
    let proxy = Proxy::blue_green(
        &blue,
        &green,
        "health: {path: /healthz, interval: 50ms, rise: 1}",
    );
    let set = async |version: &str, url: &str| {
        let path = "/v1/services/shop/backends/green";
        let body = json!({"version": version, "endpoints": [url]});
        let answer = proxy.api("PUT", path, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let known = || {
        crate::support::eventually_async("green is known to be healthy", || async {
            proxy.service().await["backends"]["green"]["health"] == "healthy"
        })
    };
    set("2-old", &old.url()).await;
    known().await;
    proxy.weights(50, 50).await;
    let then = revision(&proxy).await;
    proxy.weights(100, 0).await;
    set("3", &green.url()).await;
    // What ran there is gone since; what runs there now is fine.
    let address = old.address;
    drop(old);
    known().await;
    let before = revision(&proxy).await;
    let path = format!("/v1/revisions/{then}/restore");
    let refused = proxy.post(&path, json!({})).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(problem["code"], "target_unhealthy");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("\"green\"")
            && detail.contains("\"2-old\"")
            && detail.contains("backend set"),
        "{detail}"
    );
    assert_eq!(revision(&proxy).await, before);
    assert_eq!(proxy.service().await["weights"]["green"], 0);

    // The repair that it names.
    let _old = Origin::start_at(address).await;
    set("2-old", &format!("http://{address}")).await;
    known().await;
    let answer = restore(&proxy, then, json!({})).await;
    assert_eq!(answer["changed"], true, "{answer}");
    assert_eq!(proxy.service().await["weights"]["green"], 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_bounded_as_the_file_says_and_what_is_dropped_is_said() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "").replace(
        "admin: {address: \"127.0.0.1:0\"}",
        "admin: {address: \"127.0.0.1:0\", revisions: 10}",
    );
    let more = config.replace(
        "routes: [{service: shop}]",
        "routes: [{service: shop}, {path: /b, service: site}]",
    );
    let site = format!(
        "  site: {{stable: one, backends: {{one: {{version: \"1\", endpoints: [\"{}\"]}}}}}}\n",
        blue.url()
    );
    let proxy = Proxy::start(&format!("{more}{site}"));
    for green in 1..=16 {
        proxy.weights(100 - green, green).await;
    }
    let kept = proxy.get("/v1/revisions?service=shop").await;
    let numbers: Vec<u64> = kept["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["revision"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [16, 15, 14, 13, 12, 11, 10, 9, 8, 7]);
    assert_eq!(
        proxy
            .api("GET", "/v1/revisions/3", Value::Null)
            .await
            .status,
        404
    );
    let answer = proxy.post("/v1/revisions/3/restore", json!({})).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (404, &json!("not_found"))
    );
    // The edge: what was in force before the oldest revision is known.
    let answer = restore(&proxy, 6, json!({"service": "shop"})).await;
    assert_eq!(
        answer["services"][0]["weights"],
        json!({"blue": 94, "green": 6})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explanation_tells_where_traffic_goes_why_and_what_to_do() {
    let (blue, green) = origins().await;
    let config = blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config);
    proxy.cli(&[
        "weights", "shop", "blue=90", "green=10", "--reason", "try 2",
    ]);
    let (code, out, err) = proxy.cli(&["explain", "shop"]);
    assert_eq!(code, 0, "{err}");
    let first = out.lines().next().unwrap();
    assert_eq!(
        first,
        "Of the traffic of shop, 90% goes to blue (version 1, stable) and 10% goes to green (version 2, canary)."
    );
    assert!(
        out.contains("admin set these weights") && out.contains("try 2"),
        "{out}"
    );
    assert!(out.contains("If green fails more than blue"), "{out}");
    assert!(out.contains("switchback rollback shop\n      leaves all traffic on blue, and blocks version 2 of green"), "{out}");
    proxy
        .post("/v1/services/shop/rollback", json!({"reason": "broken"}))
        .await;
    // The file gives the blocked version weight: its value is refused, and that is said.
    proxy.write_config(&config.replace("blue: 100, green: 0", "blue: 40, green: 60"));
    proxy.post("/v1/reload", Value::Null).await;
    let explained = proxy.get("/v1/services/shop/explain").await;
    assert_eq!(
        explained["now"][0],
        "All traffic of shop goes to blue (version 1, stable)."
    );
    assert_eq!(
        explained["commands"][1]["command"],
        "switchback unblock shop green"
    );
    let service = proxy.service().await;
    let conflict = &service["conflicts"][0];
    assert_eq!(
        (&conflict["kind"], &conflict["field"]),
        (&json!("refused"), &json!("weights.green"))
    );
    assert_eq!(
        (&conflict["file"], &conflict["by"], &conflict["reason"]),
        (&json!(60), &json!("admin"), &json!("broken"))
    );
    let (_, status, _) = proxy.cli(&["status", "shop"]);
    assert!(
        status.contains("conflict: the file gives green weight 60"),
        "{status}"
    );
    assert!(status.contains("switchback unblock shop green"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn override_is_told_beside_the_file_until_both_agree() {
    let (blue, green) = origins().await;
    let proxy = Proxy::blue_green(&blue, &green, "");
    assert_eq!(proxy.service().await["conflicts"], json!([]));
    proxy.cli(&[
        "weights", "shop", "blue=90", "green=10", "--reason", "try 2",
    ]);
    let service = proxy.service().await;
    let differs = &service["conflicts"][0];
    assert_eq!(
        (&differs["kind"], &differs["field"]),
        (&json!("differs"), &json!("weights"))
    );
    assert_eq!(differs["file"], json!({"blue": 100, "green": 0}));
    assert_eq!(differs["override"], json!({"blue": 90, "green": 10}));
    assert_eq!(
        (&differs["by"], &differs["reason"]),
        (&json!("admin"), &json!("try 2"))
    );
    assert_eq!(
        differs["ends"],
        "edit services.shop.weights in the file, or: switchback weights shop blue=100 green=0"
    );
    // What it says ends it does.
    proxy.cli(&["weights", "shop", "blue=100", "green=0"]);
    assert_eq!(
        proxy.service().await["conflicts"],
        json!([]),
        "an override equal to the file is none"
    );
}
