//! The judge over simulated traffic: a virtual clock, seeded randomness, hours in milliseconds.
//!
//! A failure prints its seed. Nothing here knows the proxy; what the judge is told is what workers would
//! have counted.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test says what is wrong by panicking, and prints its figures"
)]

mod completion_bias;
mod detection;
mod healthy_day;
mod rules;
mod shared_outage;
mod slowness;
mod sticky;
mod traffic;
