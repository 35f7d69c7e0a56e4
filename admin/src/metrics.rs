//! `/metrics`: what everybody counts, in the text format of Prometheus.
//!
//! Nothing is counted here. The numbers live in the workers' cells, in health and in the judges'
//! gauges; a scrape adds them up. Labels come from the configuration only, never from clients.

mod cluster;
mod drill;
mod flags;
mod mirror;
mod recovery;
mod versions;

use std::collections::{BTreeMap, HashMap};

use prometheus::core::Collector;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};
use switchback_proxy::outcome::CLASSES;
use switchback_proxy::snapshot::{Backend, Endpoint};
use switchback_proxy::stats::{BackendCells, BackendStats, LATENCY_BOUNDS_US};

use crate::api::Api;
use crate::control::Published;
use crate::drill::shadow::is_shadow;
use crate::observer::StableGauge;
use crate::signals::{SignalCondition, SignalView, signals};

/// All metrics.
pub(crate) fn render(api: &Api) -> String {
    let published = api.controls.published();
    let mut families = Families::default();
    about_process(api, &published, &mut families);
    let services = published.snapshot.services.iter();
    for service in services.filter(|service| !is_shadow(&service.name)) {
        for (index, backend) in service.backends.iter().enumerate() {
            let labels = [("service", &*service.name), ("backend", &*backend.name)];
            about_version(&labels, &backend.version, &backend.stats, &mut families);
            families.gauge(
                "switchback_backend_weight",
                "Weight of a backend.",
                &labels,
                f64::from(service.split.weight(index)),
            );
            let blocked = f64::from(u8::from(service.blocked[index]));
            families.gauge(
                "switchback_blocked",
                "Whether a backend's version is blocked.",
                &labels,
                blocked,
            );
            about_endpoints(&labels, backend, &mut families);
        }
        versions::about_versions(service, &mut families);
    }
    let retired = published.retired.iter();
    for gone in retired.filter(|gone| !is_shadow(&gone.service)) {
        let labels = [("service", &*gone.service), ("backend", &*gone.backend)];
        about_version(&labels, &gone.version, &gone.stats, &mut families);
    }
    about_judges(&published, &mut families);
    about_recoveries(&published, &mut families);
    about_hooks(api, &mut families);
    flags::about_flags(&published, &mut families);
    drill::about_drills(&published, &mut families);
    cluster::about_cluster(api, &mut families);
    recovery::about_ways_back(api, &published, &mut families);
    let mut gathered: Vec<MetricFamily> = families.by_name.into_values().collect();
    gathered.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&gathered, &mut text) {
        tracing::error!(%error, "render the metrics");
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn about_process(api: &Api, published: &Published, families: &mut Families) {
    let last = api.reloader.last();
    let flag = |flag: bool| f64::from(u8::from(flag));
    families.gauge(
        "switchback_build_info",
        "The running version.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    families.gauge(
        "switchback_revision",
        "Number of the state in force.",
        &[],
        float(published.state.revision),
    );
    families.gauge(
        "switchback_state_last_write_successful",
        "Whether the last attempt to write the recorded state succeeded.",
        &[],
        flag(api.store.trouble().is_none()),
    );
    families.gauge(
        "switchback_config_last_reload_successful",
        "Whether the last read of the config file is in force.",
        &[],
        flag(last.successful),
    );
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of this century are below 2^53"
    )]
    let reloaded_at = last.at.as_millisecond() as f64 / 1e3;
    families.gauge(
        "switchback_config_last_reload_timestamp_seconds",
        "When the config file was last read.",
        &[],
        reloaded_at,
    );
    for certificate in api.reloader.certificates().borrow().iter() {
        families.gauge(
            "switchback_certificate_expiry_timestamp_seconds",
            "When a certificate that is shown to clients or backends expires.",
            &[
                ("tls", &certificate.section),
                ("certificate", &certificate.name),
            ],
            float(certificate.expires),
        );
    }
    about_connections(api, families);
}

fn about_connections(api: &Api, families: &mut Families) {
    families.gauge(
        "switchback_connections",
        "Open client connections.",
        &[],
        usize_float(api.plane.connections()),
    );
    let (mut accepted, mut dropped, mut failed, mut refused) = (0, 0, 0, [0; 2]);
    for worker in api.plane.worker_stats() {
        accepted += worker.accepted.get();
        dropped += worker.log_dropped.get();
        failed += worker.handshake_failures.get();
        refused[0] += worker.refused[0].get();
        refused[1] += worker.refused[1].get();
    }
    families.counter(
        "switchback_connections_total",
        "Accepted client connections.",
        &[],
        accepted,
    );
    families.counter(
        "switchback_access_log_dropped_total",
        "Access log lines lost because the log could not keep up.",
        &[],
        dropped,
    );
    families.counter(
        "switchback_spans_lost_total",
        "Spans of requests that were lost on the way to the collector of traces, or that it did not take.",
        &[],
        api.plane.spans_lost(),
    );
    families.counter(
        "switchback_tls_handshake_failures_total",
        "Failed TLS handshakes of clients.",
        &[],
        failed,
    );
    for limit in switchback_proxy::limit::Limit::ALL {
        let hits = api.plane.worker_stats().iter();
        families.counter(
            "switchback_limit_hits_total",
            "How often a limit of the configuration was hit.",
            &[("limit", limit.name())],
            hits.map(|worker| worker.limits.get(*limit)).sum(),
        );
    }
    let help = "Requests answered by switchback itself.";
    families.counter(
        "switchback_refused_total",
        help,
        &[("code_class", "4xx")],
        refused[0],
    );
    families.counter(
        "switchback_refused_total",
        help,
        &[("code_class", "5xx")],
        refused[1],
    );
}

fn about_version(
    labels: &[(&str, &str); 2],
    version: &str,
    stats: &BackendStats,
    families: &mut Families,
) {
    let sum = |read: &dyn Fn(&BackendCells) -> u64| stats.split().iter().map(read).sum::<u64>();
    for (index, class) in CLASSES.iter().enumerate() {
        let count = sum(&|cells| cells.classes[index].get());
        if count > 0 {
            let labels = [
                labels[0],
                labels[1],
                ("version", version),
                ("code_class", class),
            ];
            families.counter(
                "switchback_requests_total",
                "Ended requests by outcome.",
                &labels,
                count,
            );
        }
    }
    let previews: u64 = stats.preview().iter().map(|cells| cells.begun.get()).sum();
    if previews > 0 {
        let labels = [labels[0], labels[1], ("version", version)];
        families.counter(
            "switchback_preview_requests_total",
            "Requests of testers who chose the backend.",
            &labels,
            previews,
        );
    }
    families.add(
        "switchback_in_flight",
        "Requests in flight.",
        MetricType::GAUGE,
        labels,
        |metric| {
            let before = metric.get_gauge().get_value();
            set_gauge(metric, before + float(stats.in_flight()));
        },
    );
    let rescued = sum(&|cells| cells.rescued.get());
    families.add_counter(
        "switchback_rescued_total",
        "Requests of a backend that stable answered in its place.",
        labels,
        rescued,
    );
    let retries = sum(&|cells| cells.retries.get());
    families.add_counter(
        "switchback_retries_total",
        "Requests sent to the same backend again.",
        labels,
        retries,
    );
    let slow = sum(&|cells| cells.slow.get());
    families.add_counter(
        "switchback_slow_requests_total",
        "Requests that waited too long for an answer, where the service says what that is.",
        labels,
        slow,
    );
    about_time(labels, stats, families);
    mirror::about_copies(labels, version, stats, families);
}

fn about_time(labels: &[(&str, &str); 2], stats: &BackendStats, families: &mut Families) {
    let sum = |read: &dyn Fn(&BackendCells) -> u64| stats.split().iter().map(read).sum::<u64>();
    let buckets: Vec<u64> = (0..=LATENCY_BOUNDS_US.len())
        .map(|index| sum(&|cells| cells.latency[index].get()))
        .collect();
    let total_us = sum(&|cells| cells.latency_us.get());
    families.add(
        "switchback_request_duration_seconds",
        "Time from choosing an endpoint to the end of the response.",
        MetricType::HISTOGRAM,
        labels,
        |metric| {
            add_histogram(metric, &buckets, total_us);
        },
    );
}

/// Adds to a histogram: a backend's versions share one series.
fn add_histogram(metric: &mut Metric, counts: &[u64], total_us: u64) {
    let before = metric.get_histogram().clone();
    let before_at = |index: usize| {
        before
            .get_bucket()
            .get(index)
            .map_or(0, Bucket::cumulative_count)
    };
    let mut histogram = Histogram::default();
    let mut cumulative = 0;
    let mut buckets = Vec::new();
    for (index, bound) in LATENCY_BOUNDS_US.iter().enumerate() {
        cumulative += counts[index];
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(float(*bound) / 1e6);
        bucket.set_cumulative_count(cumulative + before_at(index));
        buckets.push(bucket);
    }
    cumulative += counts[LATENCY_BOUNDS_US.len()];
    histogram.set_bucket(buckets);
    histogram.set_sample_count(cumulative + before.get_sample_count());
    histogram.set_sample_sum(float(total_us) / 1e6 + before.get_sample_sum());
    metric.set_histogram(histogram);
}

fn about_endpoints(labels: &[(&str, &str); 2], backend: &Backend, families: &mut Families) {
    for endpoint in &backend.endpoints {
        let url = format!("{}://{}", endpoint.scheme.as_str(), endpoint.authority);
        let address = endpoint.address.to_string();
        let labels = [
            labels[0],
            labels[1],
            ("endpoint", &url),
            ("address", &address),
        ];
        families.gauge(
            "switchback_endpoint_up",
            "Whether nothing is known against an endpoint.",
            &labels,
            up(endpoint),
        );
    }
}

fn up(endpoint: &Endpoint) -> f64 {
    f64::from(u8::from(endpoint.health.is_healthy()))
}

fn about_judges(published: &Published, families: &mut Families) {
    let services = published.services.iter();
    for (service, status) in services.filter(|(name, _)| !is_shadow(name)) {
        for (backend, gauge) in &status.gauges {
            let labels = [("service", service.as_str()), ("backend", backend.as_str())];
            let help = "How close the judge is to a rollback: 1 rolls back.";
            families.gauge("switchback_judge_evidence", help, &labels, gauge.evidence());
        }
        if let Some(gauge) = &status.stable_gauge {
            about_stable(service, gauge, families);
        }
        for view in signals(published, service) {
            about_signal(service, &view, families);
        }
        let panic = f64::from(u8::from(crate::api::views::panics(published, service)));
        families.gauge(
            "switchback_health_panic",
            "Whether probes fail everywhere and are not believed.",
            &[("service", service)],
            panic,
        );
    }
    for ((service, cause), count) in &published.rollbacks {
        let labels = [("service", service.as_str()), ("cause", cause)];
        families.counter(
            "switchback_rollbacks_total",
            "Rollbacks by cause.",
            &labels,
            *count,
        );
    }
}

fn about_recoveries(published: &Published, families: &mut Families) {
    for ((service, result), count) in &published.recoveries {
        families.counter(
            "switchback_recoveries_total",
            "Checks after rollbacks: recovered, did_not_help, unknown or interrupted.",
            &[("service", service.as_str()), ("result", result)],
            *count,
        );
    }
}

fn about_stable(service: &str, gauge: &StableGauge, families: &mut Families) {
    let firing = gauge.firing();
    for rule in gauge.rules() {
        let fires = firing.iter().any(|firing| firing.rule == *rule);
        families.gauge(
            "switchback_rule_firing",
            "Whether a plain rule fires about stable while no other version has weight.",
            &[
                ("service", service),
                ("backend", gauge.backend()),
                ("rule", rule),
            ],
            f64::from(u8::from(fires)),
        );
    }
}

fn about_hooks(api: &Api, families: &mut Families) {
    let counts = &api.hooks.counts;
    for ((service, hook, result), count) in counts.by_result() {
        let labels = [
            ("service", service.as_str()),
            ("hook", hook.as_str()),
            ("result", result),
        ];
        let help = "Attempts to reach hooks: delivered, failed, or dead after the last one.";
        families.counter("switchback_hook_deliveries_total", help, &labels, count);
    }
    families.gauge(
        "switchback_hook_deliveries_waiting",
        "Messages to hooks that are not delivered yet.",
        &[],
        usize_float(counts.waiting()),
    );
    families.gauge(
        "switchback_hook_dead_letters",
        "Messages to hooks that were given up.",
        &[],
        float(counts.dead()),
    );
    families.counter(
        "switchback_hook_messages_lost_total",
        "What hooks do not hear of because it could not be written down.",
        &[],
        api.store.lost_errands(),
    );
}

fn about_signal(service: &str, view: &SignalView, families: &mut Families) {
    let Some(backend) = view.backend.as_deref() else {
        return;
    };
    let labels = [
        ("service", service),
        ("backend", backend),
        ("signal", view.name.as_str()),
    ];
    for (state, name) in SignalCondition::WATCHED {
        families.gauge(
            "switchback_signal_state",
            "Whether a signal from outside is in this state.",
            &[labels[0], labels[1], labels[2], ("state", name)],
            f64::from(u8::from(view.state == state)),
        );
    }
    if let Some(value) = view.value {
        families.gauge(
            "switchback_signal_value",
            "What was last heard from a signal from outside.",
            &labels,
            value,
        );
    }
}

/// Metric families by name, with their metrics by label.
#[derive(Default)]
struct Families {
    by_name: BTreeMap<&'static str, MetricFamily>,
    /// Where the metric with certain labels stands in its family.
    places: HashMap<(&'static str, String), usize>,
}

impl Families {
    /// Finds or makes a metric and changes it.
    fn add(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
        labels: &[(&str, &str)],
        change: impl FnOnce(&mut Metric),
    ) {
        let family = self.by_name.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        let metrics = family.mut_metric();
        let values: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
        let place = *self
            .places
            .entry((name, values.join("\u{0}")))
            .or_insert(metrics.len());
        if place == metrics.len() {
            let mut metric = Metric::default();
            metric.set_label(
                labels
                    .iter()
                    .map(|(name, value)| pair(name, value))
                    .collect(),
            );
            metrics.push(metric);
        }
        change(&mut metrics[place]);
    }

    fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.add(name, help, MetricType::GAUGE, labels, |metric| {
            set_gauge(metric, value)
        });
    }

    fn counter(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.add(name, help, MetricType::COUNTER, labels, |metric| {
            set_counter(metric, float(value))
        });
    }

    fn add_counter(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.add(name, help, MetricType::COUNTER, labels, |metric| {
            let before = metric.get_counter().get_value();
            set_counter(metric, before + float(value));
        });
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn set_gauge(metric: &mut Metric, value: f64) {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
}

fn set_counter(metric: &mut Metric, value: f64) {
    let mut counter = Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counters are shown as floats by this format anyway"
)]
fn float(count: u64) -> f64 {
    count as f64
}

fn usize_float(count: usize) -> f64 {
    float(count as u64)
}
