//! Types of the config crate, as the OpenAPI document describes them.
//!
//! The config crate knows nothing of OpenAPI. Each type here stands for the one whose name it has, and
//! exists for its description only; a test compares both.
#![expect(dead_code, reason = "these types are described, never made")]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// A length of time with its unit, or a sum of two.
#[derive(Serialize, ToSchema)]
#[schema(
    value_type = String,
    pattern = r"^(\d{1,17}ns|\d{1,14}us|\d{1,11}ms|\d{1,8}s|\d{1,6}m|\d{1,4}h|\d{1,3}d)( (\d{1,8}s|\d{1,6}m|\d{1,4}h))?$",
    example = "5m"
)]
pub(crate) struct TimeSpan(String);

/// A share of the traffic.
#[derive(Serialize, ToSchema)]
#[schema(value_type = String, pattern = r"^(\d{1,2}(\.\d{1,4})?|100(\.0{1,4})?)%$", example = "2.5%")]
pub(crate) struct Percent(String);

/// Where requests are sent: scheme (`http`, `https`, `h2c`), host and port. The pattern takes all IPv4
/// addresses, and the usual ways to write IPv6 addresses and names; switchback takes all there are.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = r"^(http|https|h2c)://(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])|\[(([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|::([0-9a-f]{1,4})?|([0-9a-f]{1,4}:){1,5}(:[0-9a-f]{1,4}){1,2})\]|([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?[.]){0,3}[A-Za-z_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/?$", example = "http://127.0.0.1:9001")]
pub(crate) struct Endpoint(String);

/// Weight of each backend of a service.
#[derive(ToSchema)]
#[schema(value_type = BTreeMap<String, u32>, example = json!({"blue": 95, "green": 5}))]
pub(crate) struct Weights(BTreeMap<String, u32>);

/// One deployed version of a service.
#[derive(ToSchema)]
#[schema(as = Deployment)]
pub(crate) struct Backend {
    /// Label of what is deployed; absent only where a service has a single backend.
    version: Option<String>,
    /// Its addresses.
    endpoints: Vec<Endpoint>,
    /// TLS towards `https` endpoints.
    tls: Option<UpstreamTls>,
    /// Flags that go off when this version is rolled back.
    #[schema(required = false)]
    off_on_rollback: Vec<String>,
    /// Which versions of the database schema it can live with; absent: nothing is known of that.
    schema: Option<SchemaSupport>,
    /// What its release does to the database.
    #[schema(required = false)]
    migration: Migration,
}

/// Which versions of the database schema a version can live with.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaSupport {
    /// It works on a database with one of these.
    #[schema(example = json!([3, 4]))]
    reads: Vec<u32>,
    /// It writes data in the form of this one; always one of `reads`.
    #[schema(example = 4)]
    writes: u32,
}

/// What the release of a version does to the database.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Migration {
    /// Nothing.
    None,
    /// It adds what older versions do not mind.
    Expand,
    /// It removes what only older versions need.
    Contract,
    /// It loses data that an older version would miss.
    Destructive,
}

/// TLS towards endpoints.
#[derive(ToSchema)]
pub(crate) struct UpstreamTls {
    /// PEM file with the authorities to trust instead of the system's.
    ca: Option<String>,
    /// The name to ask for and to verify, instead of the endpoint's host.
    server_name: Option<String>,
    /// PEM file with the chain to present.
    client_certificate: Option<String>,
    /// PEM file with its key.
    client_key: Option<String>,
}

/// The plan of a rollout.
#[derive(ToSchema)]
#[schema(as = RolloutPlan)]
pub(crate) struct Rollout {
    /// Shares of the canary, one after the other. None is smaller than the one before.
    steps: Vec<Step>,
    /// The last stretch before the canary becomes stable; `off`: none.
    bake: BakeOrOff,
    /// No step is left before the canary has answered so many requests in it.
    min_requests: u32,
    /// A rollout that stands still for so long, beyond the time its step takes, is given up.
    deadline: TimeSpan,
}

/// One share of the canary, and what it takes to go on. At least one condition is set.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Share of the canary: 0.01 % to 99.99 %.
    weight: Percent,
    /// How long it lasts at least.
    #[serde(rename = "for")]
    span: Option<TimeSpan>,
    /// How many requests the canary answers at least.
    requests: Option<u32>,
    /// Whether somebody has to say that it may go on.
    #[serde(default)]
    approve: bool,
}

/// The last stretch: the canary has everything but a holdback, which is the control group.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bake {
    /// Share of stable: 1 % to 50 %.
    holdback: Percent,
    /// How long it lasts at least.
    #[serde(rename = "for")]
    span: TimeSpan,
}

/// A bake, or none at all.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BakeOrOff {
    /// None.
    Off(Off),
    /// How it goes.
    Bake(Bake),
}

/// None.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Off {
    /// None.
    Off,
}

/// One difference.
#[derive(ToSchema)]
pub(crate) struct Difference {
    /// The key.
    #[schema(example = "services.checkout.weights.green")]
    path: String,
    /// What it was; `null` if it was not there.
    before: serde_json::Value,
    /// What it is; `null` if it is gone.
    after: serde_json::Value,
}

/// A feature flag, with everything written out.
#[derive(ToSchema)]
pub(crate) struct Flag {
    /// Whether it is in use; otherwise everybody gets `off`.
    enabled: bool,
    /// Its values by name.
    #[schema(example = json!({"on": true, "off": false}))]
    variants: BTreeMap<String, serde_json::Value>,
    /// The variant of whom nothing else concerns.
    default: String,
    /// The variant while it is not in use.
    off: String,
    /// Share of targeting keys that get each variant.
    #[schema(required = false)]
    shares: BTreeMap<String, Percent>,
    /// Who gets something else; the first that matches decides.
    #[schema(required = false)]
    rules: Vec<FlagRule>,
    /// Whether it is off while its state cannot be read.
    #[schema(required = false)]
    kill_switch: bool,
    /// How old the last look at a kill switch's state may be.
    max_age: Option<TimeSpan>,
}

/// What some get instead, by attributes of the context.
#[derive(ToSchema)]
pub(crate) struct FlagRule {
    /// What each attribute has to be.
    when: BTreeMap<String, FlagCondition>,
    /// The variant they get.
    serve: Option<String>,
    /// Share of their targeting keys that get each variant.
    #[schema(required = false)]
    shares: BTreeMap<String, Percent>,
}

/// What an attribute has to be; all of it must hold.
#[derive(ToSchema)]
pub(crate) struct FlagCondition {
    /// One of these.
    #[schema(required = false)]
    is: Vec<serde_json::Value>,
    /// None of these, or not there.
    #[schema(required = false)]
    not: Vec<serde_json::Value>,
    /// Text that begins so.
    starts_with: Option<String>,
    /// Text that ends so.
    ends_with: Option<String>,
    /// Text with this in it.
    contains: Option<String>,
    /// A number above this one.
    above: Option<f64>,
    /// A number below this one.
    below: Option<f64>,
}

/// A flag as it is written in the config file; `switchback schema` describes it closely.
#[derive(ToSchema)]
#[schema(value_type = Object, example = json!({"share": "5%"}))]
pub(crate) struct WrittenFlag(BTreeMap<String, serde_json::Value>);
