//! What the API answers, as types: the same shape for the API, the command line, the dashboard and the
//! OpenAPI document.
//!
//! A member that is documented here is documented everywhere: doc comments become descriptions. The
//! types are made from what is published at one moment, and hold copies of it.

mod backend;
pub(crate) mod cluster;
pub(in crate::api) mod database;
mod flag;
mod followed;
pub(crate) mod judge;
pub(super) mod list;
mod mirror;
pub(crate) mod overview;
mod planned;
pub(crate) mod rollback;
mod rollout;
mod runbook;
pub(crate) mod schema;
mod service;
mod written;

pub(crate) use flag::{FlagAnswer, FlagView, FlagWritten, Flags, flag, flags};
pub(crate) use followed::Followed;
pub(crate) use planned::planned;
pub(crate) use rollout::{Rollout, rollout};
pub(crate) use runbook::{RunView, RunWritten, Runbooks, run, run_view, runbooks};
pub(crate) use service::{Service, Services, panics, service, services};
pub(crate) use written::{Answer, AnswerOrRefused, Answers, BeforeSwitch, Refused, written};
