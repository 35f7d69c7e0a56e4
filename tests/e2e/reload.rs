//! Reading the file again: all or nothing, and nobody notices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Http, Load, Named, Origin, Protocol, Proxy, eventually, eventually_async};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_under_load_fail_no_request() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config);
    let load = Load::start(proxy.web, Protocol::Http1, 8);
    let load2 = Load::start(proxy.web, Protocol::Http2, 4);
    for number in 0..200 {
        // Weights, limits and routes change, so that everything is rebuilt.
        let share = number % 100;
        let changed = config
            .replace("blue: 100, green: 0", &format!("blue: {}, green: {share}", 100 - share))
            .replace("routes: [{service: shop}]", &format!("limits: {{keep_alive_timeout: {}s}}\nroutes: [{{service: shop}}, {{path: /p{number}, service: shop}}]", 60 + number));
        proxy.write_config(&changed);
        let answer = proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let done = load.finish().await + load2.finish().await;
    println!("200 reloads under {done} requests: 0 failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_file_is_noticed_and_a_bad_one_changes_nothing() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config);
    proxy.write_config(&config.replace("blue: 100, green: 0", "blue: 30, green: 70"));
    eventually_async("the file is taken over", || async {
        proxy.service().await["weights"] == json!({"blue": 30, "green": 70})
    })
    .await;
    for bad in ["", "version: 1\nlistners: {}\n", "version: 1\nworkers: [\n"] {
        proxy.write_config(bad);
        let answer = proxy.post("/v1/reload", Value::Null).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (422, &json!("config_invalid")),
            "{bad:?}"
        );
        assert!(!answer.json()["diagnostics"].as_array().unwrap().is_empty());
        assert_eq!(
            proxy.service().await["weights"],
            json!({"blue": 30, "green": 70})
        );
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        assert!(metrics.contains("switchback_config_last_reload_successful 0"));
    }
    assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
    proxy.write_config(&config);
    proxy.signal(rustix::process::Signal::HUP);
    eventually_async("the file is taken over", || async {
        proxy.service().await["weights"] == json!({"blue": 100, "green": 0})
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_file_is_shown_wherever_somebody_looks_and_an_unchanged_one_is_logged() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config);
    proxy.signal(rustix::process::Signal::HUP);
    eventually("it is logged that nothing has changed", || {
        proxy.log().contains("it says what is in force already")
    });
    let verbose = || async {
        let answer = proxy.api("GET", "/readyz?verbose", Value::Null).await;
        (answer.status, answer.text())
    };
    assert!(verbose().await.1.contains("config ok\n"));
    proxy.write_config("version: 1\nlistners: {}\n");
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 422);
    let (status, text) = verbose().await;
    assert_eq!(status, 200, "what is in force serves");
    assert!(
        text.contains("config failed: the last file was refused"),
        "{text}"
    );
    let (_, out, _) = proxy.cli(&["status"]);
    assert!(out.contains("the file was refused at "), "{out}");
    assert!(out.contains("switchback check says more"), "{out}");
    proxy.write_config(&config);
    assert_eq!(proxy.post("/v1/reload", Value::Null).await.status, 200);
    let (_, out, _) = proxy.cli(&["status"]);
    assert!(!out.contains("refused"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn symlink_swap_of_a_mounted_config_map_is_noticed() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("one", config.clone()),
        (
            "two",
            config.replace("blue: 100, green: 0", "blue: 20, green: 80"),
        ),
    ] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
        std::fs::write(directory.path().join(name).join("switchback.yaml"), text).unwrap();
    }
    let link = |target: &str| {
        let (new, data) = (
            directory.path().join("..data_tmp"),
            directory.path().join("..data"),
        );
        std::os::unix::fs::symlink(target, &new).unwrap();
        std::fs::rename(new, data).unwrap();
    };
    link("one");
    std::os::unix::fs::symlink(
        "..data/switchback.yaml",
        directory.path().join("switchback.yaml"),
    )
    .unwrap();
    let path = directory.path().to_path_buf();
    let proxy = Proxy::start_in(directory);
    let (new, data) = (path.join("..data_tmp"), path.join("..data"));
    std::os::unix::fs::symlink("two", &new).unwrap();
    std::fs::rename(new, data).unwrap();
    eventually_async("the swap is noticed", || async {
        proxy.service().await["weights"] == json!({"blue": 20, "green": 80})
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn override_holds_until_the_file_says_something_else() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config);
    proxy.weights(50, 50).await;
    proxy.write_config(&config.replace("routes:", "limits: {keep_alive_timeout: 50s}\nroutes:"));
    proxy.post("/v1/reload", Value::Null).await;
    let service = proxy.service().await;
    assert_eq!(
        service["weights"],
        json!({"blue": 50, "green": 50}),
        "the file's weights did not change"
    );
    assert_eq!(service["file"]["weights"], json!({"blue": 100, "green": 0}));
    assert_eq!(
        service["override"]["weights"]["value"],
        json!({"blue": 50, "green": 50})
    );
    assert_eq!(service["override"]["weights"]["by"], "admin");
    proxy.write_config(&config.replace("blue: 100, green: 0", "blue: 90, green: 10"));
    proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 90, "green": 10})
    );
    let events = proxy
        .api("GET", "/v1/events?follow=false", Value::Null)
        .await
        .text();
    assert!(events.contains("override_ended"), "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_restart_can_change_is_refused_with_a_code() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config);
    proxy.write_config(&config.replace("workers: 2", "workers: 1"));
    let answer = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (422, &json!("restart_only"))
    );
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .contains("workers")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_and_go_with_the_file() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config);
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let web = "  web: {address: \"127.0.0.1:0\"}\n";
    proxy.write_config(&config.replace(web, &format!("{web}  more: {{address: \"{free}\"}}\n")));
    let answer = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(Http::connect(free).await.get("/").await.status, 200);
    let mut kept = Http::connect(free).await;
    assert_eq!(kept.get("/").await.status, 200);
    proxy.write_config(&config);
    proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(
        kept.get("/").await.status,
        200,
        "an open connection goes on"
    );
    eventually_async("nobody listens there any more", || async {
        let connected =
            tokio::time::timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(free))
                .await;
        matches!(connected, Ok(Err(_)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_file_at_the_start_exits_78_unless_the_last_good_one_is_asked_for() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let good = std::fs::read_to_string(proxy.path().join("switchback.yaml")).unwrap();
    assert!(!good.is_empty());
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(proxy.wait(), Some(0));
    proxy.write_config("version: 1\n");
    let (code, _, err) = proxy.cli(&["run", "--config", "switchback.yaml"]);
    assert_eq!(code, 78);
    assert!(err.contains("SB0009"), "{err}");
    assert!(std::fs::read_to_string(proxy.state_dir().join("config.yaml")).unwrap() == good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_given_by_name_serves_from_the_first_request_after_a_reload() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let named = Named::start().await;
    let config = crate::support::blue_green(&blue.url(), &green.url(), "");
    let proxy = Proxy::start(&config);
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    let by_name = named.url();
    proxy.write_config(&config.replace(&blue.url(), &by_name));
    let answer = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually_async("the named endpoint serves", || async {
        named.received() > 50
    })
    .await;
    load.finish().await;
    let service = proxy.service().await;
    assert_eq!(
        service["backends"]["blue"]["endpoints"][0]["url"], by_name,
        "{service}"
    );
}
