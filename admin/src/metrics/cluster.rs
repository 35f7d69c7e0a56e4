//! Metrics of the instances that share one state, as this one knows them. Where it is alone there are none.

use super::Families;
use crate::api::Api;
use crate::api::views::cluster::{Cluster, Known};

/// Adds how this instance stands with the others.
pub(super) fn about_cluster(api: &Api, families: &mut Families) {
    if let Some(fleet) = api.controls.fleet() {
        about(&Cluster::of(fleet), families);
    }
}

fn about(cluster: &Cluster, families: &mut Families) {
    let joined = cluster.contact == Known::Joined;
    let leads = cluster.leader.as_ref() == Some(&cluster.instance);
    let mut alive = cluster.alive();
    let differs = alive.any(|member| member.baseline_differs == Some(true));
    let flags = [
        (
            "switchback_cluster_joined",
            "Whether this instance hears what the others do.",
            joined,
        ),
        (
            "switchback_cluster_isolated",
            "Whether canaries have weight 0 on this instance because etcd is away.",
            cluster.is_isolated(),
        ),
        (
            "switchback_cluster_leader",
            "Whether this instance moves rollouts and ends leases for all.",
            joined && leads,
        ),
        (
            "switchback_cluster_has_leader",
            "Whether any instance does, as far as this one knows.",
            cluster.leader.is_some(),
        ),
        (
            "switchback_cluster_draining",
            "Whether this instance is to get no new clients.",
            cluster.own().is_some_and(|own| own.draining),
        ),
        (
            "switchback_cluster_baseline_differs",
            "Whether the config file of a living instance is another one than that of this one.",
            differs,
        ),
    ];
    for (name, help, is_so) in flags {
        families.gauge(name, help, &[], f64::from(u8::from(is_so)));
    }
    families.gauge(
        "switchback_cluster_instances",
        "Instances that are alive, as far as this one knows.",
        &[],
        super::usize_float(cluster.alive().count()),
    );
    families.gauge(
        "switchback_cluster_members",
        "Instances that have ever joined and were not removed.",
        &[],
        super::usize_float(cluster.instances.len()),
    );
    for member in cluster.alive() {
        let lag = member.lag.unwrap_or(0);
        families.gauge(
            "switchback_cluster_revision_lag",
            "Changes that an instance does not serve yet.",
            &[("instance", &member.name)],
            super::float(lag),
        );
    }
}
