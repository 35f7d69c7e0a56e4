//! The whole process against real sockets: what operators and clients see.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::type_complexity,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what is wrong by panicking"
)]

mod api;
mod attacks;
mod cli;
mod clients;
#[cfg(feature = "etcd")]
mod cluster;
#[cfg(feature = "etcd")]
mod cluster_access;
#[cfg(feature = "etcd")]
mod cluster_faults;
#[cfg(feature = "etcd")]
mod cluster_leader;
#[cfg(feature = "etcd")]
mod cluster_names;
mod conditions;
mod dashboard;
mod databases;
mod deploy;
mod docs;
mod drill;
mod edge;
mod events;
mod evidence;
mod faults;
mod flags;
mod floods;
mod forwarding;
mod framing;
mod h2_conformance;
mod h2_requests;
mod health;
mod history;
mod hooks;
mod hooks_before_switch;
mod hooks_standards;
mod image_rollback;
mod import;
mod init;
#[cfg(feature = "etcd")]
mod instances;
mod judge;
mod limits;
mod limits_of_time;
mod mirror;
mod mirror_judge;
mod monitoring;
mod one_request;
mod openapi;
mod pitfalls;
mod promises;
mod recovery;
mod reload;
mod rescue;
mod rollout;
mod routing;
mod runbooks;
mod samples;
mod schemathesis;
mod signals;
mod simulate;
mod slow;
mod stable_rules;
mod state;
mod story;
#[path = "../fuzz/strict.rs"]
#[allow(unreachable_pub, reason = "fuzzers use it too, as a library")]
mod strict;
mod support;
mod takeover;
mod tls;
mod top;
#[cfg(feature = "otel")]
mod traces;
mod upgrades;
mod upstream_framing;
mod upstream_h2;
mod versions;
mod wire;
#[cfg(not(feature = "etcd"))]
mod without_etcd;
