//! The configuration of switchback: text in, typed model or diagnostics out.
//!
//! This crate is pure. It opens no file, reads no clock and no environment, and knows no socket:
//! the caller hands it text and gets a [`model::Config`] or every fault in that text at once.
//! Whatever needs the outside world (certificates that must parse, ports that must bind) is
//! checked by those who own it.

pub mod defaults;
pub mod model;
pub mod units;
