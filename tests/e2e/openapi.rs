//! The OpenAPI document: what it says is there is there, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Http, Origin, Proxy};

/// The copy that is kept with the sources, for readers and for clients that are generated.
const KEPT: &str = "tests/openapi.json";

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

async fn proxy() -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    (blue, green, proxy)
}

/// A path with something in place of each of its parameters.
fn concrete(path: &str) -> String {
    path.replace("{service}", "shop")
        .replace("{backend}", "green")
        .replace("{flag}", "plain")
        .replace("{revision}", "1")
        .replace("{id}", "1")
        .replace("/docs/{file}", "/docs/page.js")
        .replace("/ui/{file}", "/ui/main.js")
        .replace("{instance}", "one")
        .replace("{rollback}", "1")
}

/// Every path with what it takes.
fn paths(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    document["paths"].as_object().unwrap().iter()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_document_is_the_one_that_is_served() {
    let (_blue, _green, proxy) = proxy().await;
    let answer = proxy.api("GET", "/openapi.json", Value::Null).await;
    assert_eq!(answer.header("content-type"), "application/json");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, answer.text()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == answer.text(),
        "{KEPT} is out of date: run this test with UPDATE_EXPECT=1, and read the difference"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn document_and_router_name_the_same_endpoints() {
    let (_blue, _green, proxy) = proxy().await;
    let document = proxy.get("/openapi.json").await;
    for (path, item) in paths(&document) {
        let concrete = concrete(path);
        assert!(!concrete.contains("/{"), "give {path} a value here");
        let described: BTreeSet<&str> = METHODS
            .into_iter()
            .filter(|method| item[method].is_object())
            .collect();
        for method in METHODS {
            // The stream of events would not end.
            let query = if path == "/v1/events" {
                "?follow=false"
            } else {
                ""
            };
            let body = if method == "get" {
                Value::Null
            } else {
                json!([])
            };
            let answer = proxy
                .api(&method.to_uppercase(), &format!("{concrete}{query}"), body)
                .await;
            // A revision that is not there is answered 404 too, by the endpoint.
            let nobody = answer.text().contains("there is no such endpoint");
            let found = answer.status != 405 && !nobody;
            assert_eq!(found, described.contains(method), "{method} {path}");
            if answer.status == 405 {
                let allowed = answer.header("allow").to_lowercase();
                let allowed: BTreeSet<&str> = allowed
                    .split(',')
                    .filter(|method| *method != "head")
                    .collect();
                assert_eq!(allowed, described, "{path}");
            }
        }
    }
}

/// By `OpenApiRouter`, an endpoint is registered with its description. The other way in stays shut.
#[test]
fn no_endpoint_is_registered_without_its_description() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("admin/src/api.rs");
    let source = std::fs::read_to_string(source).unwrap();
    for way in [".route(", ".route_service(", ".nest(", ".merge("] {
        assert!(!source.contains(way), "use routes!, not {way}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_says_what_it_does_what_it_needs_and_how_it_fails() {
    let (_blue, _green, proxy) = proxy().await;
    let document = proxy.get("/openapi.json").await;
    let mut ids = BTreeSet::new();
    for (path, item) in paths(&document) {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{place}: {id} is there twice");
            assert!(operation["summary"].as_str().unwrap().len() > 10, "{place}");
            assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{place}");
            let is_open = operation["security"] == json!([{}]);
            let responses = &operation["responses"];
            let moved = &responses["308"];
            assert!(responses["200"].is_object() || moved.is_object(), "{place}");
            assert_eq!(responses["401"].is_null(), is_open, "{place}");
            assert!(responses["421"].is_object(), "{place}");
            if method != "get" {
                assert!(responses["409"].is_object(), "{place}");
            }
            for (status, response) in responses.as_object().unwrap() {
                if status.starts_with('3') {
                    continue;
                }
                assert!(
                    response["content"].is_object(),
                    "{place}: {status} has a body"
                );
            }
        }
    }
    for schema in document["components"]["schemas"].as_object().unwrap() {
        let described = schema.1["description"].is_string();
        assert!(described, "{} has no description", schema.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_but_the_open_ones_does_anything_without_a_token() {
    let (_blue, _green, proxy) = proxy().await;
    let document = proxy.get("/openapi.json").await;
    let before = proxy.service().await;
    for (path, item) in paths(&document) {
        for (method, operation) in item.as_object().unwrap() {
            let concrete = concrete(path);
            let mut client = Http::connect(proxy.admin).await;
            let headers = [("content-type", "application/json")];
            let answer = client
                .send(&method.to_uppercase(), &concrete, &headers, b"{}")
                .await;
            let status = answer.unwrap().status;
            let is_open = operation["security"] == json!([{}]);
            // After ten failures in a minute, an address is told to wait.
            assert_eq!(
                !is_open,
                matches!(status, 401 | 429),
                "{method} {path}: {status}"
            );
        }
    }
    let after = proxy.service().await;
    assert_eq!(
        (&before["revision"], &before["weights"]),
        (&after["revision"], &after["weights"])
    );
}
