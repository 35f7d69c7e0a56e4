//! The data plane of switchback: does what the current snapshot says.
//!
//! It knows nothing of the admin API, the judge or files. Others build a [`snapshot::Snapshot`] and
//! swap it in through the [`data_plane::DataPlane`]; workers serve clients by it, and count. To follow
//! one request, read `request::handle`.

mod balance;
mod body;
mod buffer;
mod choice;
mod client;
mod connect;
mod connection;
mod encounter;
mod error;
mod forward;
mod grpc;
mod h1;
mod h2;
mod head;
mod headers;
mod message;
mod mirror;
mod pool;
mod proxy_protocol;
mod reply;
mod report;
mod request;
mod rescue;
mod source;
mod stopwatch;
mod stream;
mod timer;
mod tunnel;
mod upload;
mod view;
mod wait;
mod worker;

pub mod access_log;
#[cfg(any(test, feature = "bench"))]
pub mod bench;
pub mod data_plane;
pub mod distinct;
pub mod exposure;
pub mod fence;
pub mod flag;
#[cfg(fuzzing)]
pub mod fuzz;
pub mod health;
pub mod limit;
pub mod mixture;
pub mod outcome;
pub mod pin;
pub mod replay;
pub mod route_use;
pub mod router;
pub mod server;
pub mod slow;
pub mod snapshot;
pub mod split;
pub mod stats;
pub mod tls;
pub mod trace;
