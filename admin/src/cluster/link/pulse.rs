//! Whether etcd was heard of lately enough for others to wait for this instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Shown, Teller};
use crate::cluster::wire::News;

/// When the lease was last renewed: the moment at which the question was sent.
pub(super) type Pulse = watch::Sender<Instant>;

/// Says when half of a lease has gone by without a sign of life, and when that is over. Runs as long as the
/// process: whatever happens to the connection, canaries are closed in time.
pub(super) async fn watch(
    mut pulse: watch::Receiver<Instant>,
    lease: Duration,
    mut isolated: bool,
    teller: Teller,
    shown: Arc<Shown>,
) {
    loop {
        let deadline = *pulse.borrow_and_update() + lease / 2;
        let now_isolated = Instant::now() >= deadline;
        if now_isolated != isolated {
            isolated = now_isolated;
            teller.tell(News::Isolated(isolated)).await;
            shown.set_isolated(isolated);
        }
        tokio::select! {
            changed = pulse.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(deadline.into()), if !isolated => {}
        }
    }
}
