//! The control plane of switchback: all that changes a snapshot.
//!
//! Every change enters by one door ([`command`]), is decided by one function ([`controller`]), and is
//! carried out by one thread ([`control`]): operators over the [`api`], the judge through the
//! [`observer`], the file through [`reload`]. What must survive goes through the [`store`].

mod age;
pub mod api;
pub mod auth;
pub mod builder;
pub mod certificates;
pub mod cli;
pub mod clock;
#[cfg_attr(
    not(feature = "etcd"),
    allow(dead_code, reason = "nobody is there to share with")
)]
pub mod cluster;
pub mod command;
mod conflict;
mod contract;
pub mod control;
pub mod controller;
pub mod demo;
mod diagnose;
pub mod drill;
pub mod effective;
pub mod events;
pub mod evidence;
mod explain;
mod farewell;
pub mod files;
mod flags;
#[cfg(fuzzing)]
pub mod fuzz;
pub mod handover;
pub mod history;
pub mod hooks;
pub mod import;
pub mod incident;
pub mod inherit;
mod methods;
mod metrics;
pub mod observer;
mod ofrep;
mod otel;
mod outbound;
mod own;
pub mod prober;
pub mod process;
mod quiet;
mod ready;
pub mod reload;
pub mod resolver;
mod retain;
mod rollout;
pub mod route_uses;
mod runbook;
mod sightings;
pub mod signals;
pub mod simulate;
pub mod state;
pub mod store;
#[cfg(test)]
mod testing;
mod timings;
pub mod trend;
