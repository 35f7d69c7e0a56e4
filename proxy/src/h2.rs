//! HTTP/2, both sides, over hyper.
//!
//! [`convert`] turns hyper's heads into ours and back; [`server`] serves a client, [`client`] holds
//! the connections to endpoints; [`gather`] sends many replies in one write. Streams are counted here
//! before they are given to hyper, so that no request ever queues inside it. What a client may do to a
//! connection beyond what hyper bounds is checked frame by frame before hyper sees it ([`watch`], [`io`]).

pub(crate) mod activity;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod convert;
pub(crate) mod gather;
pub(crate) mod io;
pub(crate) mod server;
pub(crate) mod watch;

/// Runs hyper's futures on the worker that owns the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
