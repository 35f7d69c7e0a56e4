use std::collections::BTreeMap;

use switchback_config::model::{Action, HeaderChanges, LimitOverrides, Rewrite};

use super::*;

fn route(host: &str, path: &str) -> Route {
    let host = match host {
        "*" => HostPattern::Any,
        _ => match host.strip_prefix('*') {
            Some(suffix) => HostPattern::Suffix(suffix.into()),
            None => HostPattern::Exact(host.into()),
        },
    };
    Route {
        host,
        path: path.into(),
        methods: Vec::new(),
        headers: BTreeMap::new(),
        listeners: Vec::new(),
        action: Action::Service("s".into()),
        rewrite: Rewrite::default(),
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        deprecation: None,
        keep_while_used: None,
        limits: LimitOverrides::default(),
    }
}

fn request(text: &str) -> RequestHead {
    let limits = crate::h1::facts::HeadLimits {
        bytes: 4096,
        line_bytes: 4096,
        count: 50,
        uri_bytes: 4096,
    };
    let mut head = RequestHead::default();
    let text = format!("{text}\r\n\r\n");
    crate::h1::request_head::parse(text.as_bytes(), &mut 0, &limits, &mut head)
        .ok()
        .flatten()
        .unwrap_or_else(|| panic!("{text}"));
    head
}

fn find(router: &Router, host: &str, path: &str) -> Option<RouteIndex> {
    router.find(
        &request(&format!("GET {path} HTTP/1.1\r\nHost: {host}")),
        "web",
    )
}

#[test]
fn exact_host_beats_wildcard_beats_any() {
    let router = Router::new(&[
        route("*", "/"),
        route("*.example.com", "/"),
        route("*.shop.example.com", "/"),
        route("shop.example.com", "/"),
        route("[::1]", "/"),
    ]);
    for (host, found) in [
        ("shop.example.com", 3),
        ("SHOP.Example.com:8080", 3),
        ("shop.example.com.", 3),
        ("a.example.com", 1),
        ("a.b.example.com", 1),
        ("a.shop.example.com", 2),
        ("example.com", 0),
        (".example.com", 0),
        ("other", 0),
        ("[::1]:80", 4),
    ] {
        assert_eq!(find(&router, host, "/"), Some(found), "{host}");
    }
}

#[test]
fn longest_prefix_wins_on_segment_boundaries() {
    let router = Router::new(&[
        route("*", "/a"),
        route("*", "/a/b"),
        route("*", "/a/b/c/d"),
        route("*", "/x%2fy"),
    ]);
    for (path, found) in [
        ("/a", Some(0)),
        ("/a/", Some(0)),
        ("/a?q=/a/b", Some(0)),
        ("/ab", None),
        ("/a/b", Some(1)),
        ("/a/bc", Some(0)),
        ("/a/b/c", Some(1)),
        ("/a/b/c/d", Some(2)),
        ("/a/b/c/d/e/f", Some(2)),
        ("/", None),
        ("/x/y", None),
        ("/x%2fy/z", Some(3)),
        ("//a", None),
    ] {
        assert_eq!(find(&router, "h", path), found, "{path}");
    }
}

#[test]
fn a_host_without_the_path_leaves_it_to_wider_hosts() {
    let router = Router::new(&[
        route("a.example", "/only"),
        route("*.example", "/wide"),
        route("*", "/"),
    ]);
    assert_eq!(find(&router, "a.example", "/only/x"), Some(0));
    assert_eq!(find(&router, "a.example", "/wide"), Some(1));
    assert_eq!(find(&router, "a.example", "/else"), Some(2));
}

#[test]
fn conditions_narrow_and_more_headers_win() {
    let mut plain = route("*", "/");
    plain.methods = vec!["GET".into(), "POST".into()];
    let mut beta = route("*", "/");
    beta.headers = BTreeMap::from([("x-beta".into(), "1".into())]);
    let mut both = beta.clone();
    both.headers.insert("x-more".into(), "2".into());
    let mut inside = route("*", "/");
    inside.listeners = vec!["inside".into()];
    let router = Router::new(&[plain, beta, both, inside]);
    let find = |text: &str, listener: &str| router.find(&request(text), listener);
    assert_eq!(find("GET / HTTP/1.1\r\nHost: h", "web"), Some(0));
    assert_eq!(find("PUT / HTTP/1.1\r\nHost: h", "web"), None);
    assert_eq!(find("PUT / HTTP/1.1\r\nHost: h", "inside"), Some(3));
    assert_eq!(
        find("PUT / HTTP/1.1\r\nHost: h\r\nX-Beta: 1", "web"),
        Some(1)
    );
    assert_eq!(find("PUT / HTTP/1.1\r\nHost: h\r\nX-Beta: 2", "web"), None);
    assert_eq!(
        find(
            "GET / HTTP/1.1\r\nHost: h\r\nX-Beta: 0\r\nx-beta: 1\r\nX-More: 2",
            "web"
        ),
        Some(2)
    );
}

#[test]
fn http_1_0_without_a_host_takes_routes_for_any_host() {
    let router = Router::new(&[route("a", "/"), route("*", "/")]);
    assert_eq!(router.find(&request("GET / HTTP/1.0"), "web"), Some(1));
}

#[test]
fn each_of_ten_thousand_routes_is_found() {
    let routes: Vec<Route> = (0..10_000)
        .map(|n| route(&format!("h{}.example", n % 100), &format!("/p{}", n / 100)))
        .collect();
    let router = Router::new(&routes);
    for n in [0, 1, 99, 100, 5_050, 9_999] {
        assert_eq!(
            find(
                &router,
                &format!("h{}.example", n % 100),
                &format!("/p{}/x", n / 100)
            ),
            Some(n)
        );
    }
    assert_eq!(find(&router, "h0.example", "/p100"), None);
}
