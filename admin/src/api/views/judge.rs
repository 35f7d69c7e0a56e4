//! What a judge shows of itself.

use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::observer::{Gauge, Reading};

/// What the judge of a backend thinks: how close it is to a rollback, and what it last had to say, which
/// is nothing before it has seen requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct View {
    evidence: f64,
    #[serde(flatten)]
    reading: Option<Reading>,
}

impl ToSchema for View {
    fn name() -> std::borrow::Cow<'static, str> {
        "Judge".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Reading::schemas(schemas);
    }
}

/// By hand: that of a reading, none of whose members need be there, and one more.
impl PartialSchema for View {
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::Object(mut judge)) = Reading::schema() else {
            return Reading::schema();
        };
        let evidence = ObjectBuilder::new()
            .schema_type(Type::Number)
            .description(Some("How close it is to a rollback"))
            .minimum(Some(0))
            .maximum(Some(1));
        judge.description = Some("What the judge of a backend thinks. There is only evidence before it has seen requests.".into());
        judge
            .properties
            .insert("evidence".into(), evidence.build().into());
        judge.required = vec!["evidence".into()];
        Schema::Object(judge).into()
    }
}

/// The view of a judge's gauge.
pub(super) fn view(gauge: &Gauge) -> View {
    View {
        evidence: gauge.evidence(),
        reading: gauge.reading().map(|reading| Reading::clone(&reading)),
    }
}

/// The numbers of a verdict.
#[derive(ToSchema)]
#[schema(as = Explanation)]
#[expect(
    dead_code,
    reason = "described, never made: the judge knows nothing of OpenAPI"
)]
pub(crate) struct Explanation {
    /// Canary requests since the trouble began.
    canary_requests: u64,
    /// Those of them that failed.
    canary_failures: u64,
    /// Stable requests over the same stretch.
    stable_requests: u64,
    /// Those of them that failed.
    stable_failures: u64,
    /// Length of the stretch in seconds.
    seconds: f64,
    /// Upper bound of stable's usual failure rate, 0 to 1.
    usual_rate: f64,
    /// The odds of such counts from a healthy canary are at most one in ten to this power.
    odds_power: f64,
}
