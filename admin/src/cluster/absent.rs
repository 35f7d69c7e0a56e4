//! In place of the link where etcd was not built in: there is never one.

use std::convert::Infallible;
use std::path::PathBuf;

use switchback_config::model::Cluster;

use super::wire::Joining;
use super::{About, Head, NotBuilt};
use crate::control::Controls;
use crate::resolver::Resolver;

#[derive(Debug)]
pub(crate) struct Link(Infallible);

#[derive(Debug)]
pub(crate) struct Running(Infallible);

pub(crate) fn prepare(
    _: &Cluster,
    _: PathBuf,
    _: Option<Head>,
    _: bool,
) -> Result<(Joining, Link), NotBuilt> {
    Err(NotBuilt)
}

impl Link {
    #[expect(clippy::unused_async, reason = "as where it is built in")]
    pub(crate) async fn start(self, _: Controls, _: Resolver, _: About) -> Running {
        match self.0 {}
    }
}

impl Running {
    pub(crate) fn abandon(self) {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as where it is built in")]
    pub(crate) async fn stop(self) {
        match self.0 {}
    }
}
