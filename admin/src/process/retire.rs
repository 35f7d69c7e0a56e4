//! The end of a process that another one has taken over from.
//!
//! Nothing is accepted here any more. Requests in flight finish, and a connection ends with the response
//! to its next request. One that carries no request is left open for a while, since its client
//! may be sending one just now; closing it would lose that request.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use switchback_config::defaults::RETIRE_IDLE_TIME;
use tokio::sync::Notify;

use super::{Ended, Process, STORE_TIME};
use crate::handover::{Given, Giver};

impl Process {
    pub(super) fn giver(&self) -> io::Result<Giver> {
        let gone = io::ErrorKind::NotConnected;
        Ok(Giver {
            directory: self.state_dir.clone(),
            plane: self.plane.clone(),
            controls: self.controls.clone(),
            store: self.store.clone(),
            reloader: self.reloader.clone(),
            events: self.events.clone(),
            admin: self.admin_socket.as_ref().ok_or(gone)?.try_clone()?,
            ofrep: self
                .ofrep_socket
                .as_ref()
                .map(TcpListener::try_clone)
                .transpose()?,
            lent: AtomicBool::new(false),
            ending: Notify::new(),
        })
    }

    /// Lets connections end, following the process that serves now. `hurry` cuts the wait short.
    pub(super) async fn retire(mut self, mut given: Given, hurry: Arc<AtomicBool>) -> Ended {
        tracing::info!(
            pid = given.pid,
            "another process has taken over; connections may end, a signal ends now"
        );
        self.life.set_ready(false);
        self.life.retire();
        self.admin_socket = None;
        self.ofrep_socket = None;
        self.controls.retire().await;
        // The new process keeps the lease, and says when this one follows.
        if let Some(link) = self.link.take() {
            link.abandon();
        }
        // Whoever comes after the new process must find the directory free, however long this drains.
        let store = self.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.stop(STORE_TIME)).await;
        for chore in &self.chores {
            chore.abort();
        }
        self.plane.retire();
        given.part().await;
        let limits = &self.controls.published().config.limits;
        let patience = limits.shutdown_timeout.map(|span| span.0);
        let (plane, life) = (self.plane.clone(), self.life.clone());
        let drained = tokio::task::spawn_blocking(move || {
            let idle = patience.map_or(RETIRE_IDLE_TIME, |all| RETIRE_IDLE_TIME.min(all / 2));
            if plane.has_drained(idle, &hurry) {
                return 0;
            }
            let rest = patience.map(|all| all.saturating_sub(idle));
            plane.drain(rest, &hurry).cut
        });
        let drained = async move {
            let cut = drained.await.unwrap_or(0);
            life.is_quiet().await;
            cut
        };
        let follow = given.follow(&self.controls);
        let cut = tokio::select! {
            cut = drained => cut,
            // Whoever serves is gone or broken; what is left here ends all the same.
            cut = async { follow.await; std::future::pending().await } => cut,
        };
        if let Some(exporting) = self.exporting.take() {
            exporting.end().await;
        }
        self.controls.stop();
        Ended { cut }
    }

    /// Removes the file that says where this process listens, unless it is another one's by now.
    pub(super) fn forget_address(&self) {
        let path = self.state_dir.join("run.json");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let run: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if run["pid"] == std::process::id() {
            let _ = std::fs::remove_file(path);
        }
    }
}
