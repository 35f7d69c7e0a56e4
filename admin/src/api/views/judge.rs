//! What a judge shows of itself.

use serde::Serialize;
use switchback_config::model::OnFailure;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::observer::{Gauge, Reading};

/// What the judges of a backend think: how close the nearest one is to a rollback and what it last had to
/// say, which is nothing before it has seen requests, and the same of each of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct View {
    evidence: f64,
    /// What a verdict does: the setting, or `hold` where only people go back over a destructive migration.
    on_failure: OnFailure,
    #[serde(flatten)]
    reading: Option<Reading>,
    /// What each of them last had to say, the one about errors first.
    judges: Vec<One>,
}

impl ToSchema for View {
    fn name() -> std::borrow::Cow<'static, str> {
        "Judge".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Reading::schemas(schemas);
        schemas.push((One::name().into(), One::schema()));
        One::schemas(schemas);
    }
}

/// By hand: that of a reading, none of whose members need be there, and three more.
impl PartialSchema for View {
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::Object(mut judge)) = Reading::schema() else {
            return Reading::schema();
        };
        let evidence = ObjectBuilder::new()
            .schema_type(Type::Number)
            .description(Some("How close the nearest one is to a rollback"))
            .minimum(Some(0))
            .maximum(Some(1));
        let on_failure = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "What a verdict does: as set, but `hold` where the migration is destructive",
            ))
            .pattern(Some("^(rollback|hold|notify)$"));
        let judges = ArrayBuilder::new()
            .description(Some(
                "What each of them last had to say, the one about errors first",
            ))
            .items(Ref::from_schema_name(One::name()));
        judge.description = Some("What the judges of a backend think. There is only evidence before they have seen requests.".into());
        judge
            .properties
            .insert("evidence".into(), evidence.build().into());
        judge
            .properties
            .insert("on_failure".into(), on_failure.build().into());
        judge
            .properties
            .insert("judges".into(), judges.build().into());
        judge.required = vec!["evidence".into(), "on_failure".into(), "judges".into()];
        Schema::Object(judge).into()
    }
}

/// What one judge thinks.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = OneJudge)]
pub(crate) struct One {
    /// How close it is to a rollback: 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    evidence: f64,
    /// What it last had to say.
    #[serde(flatten)]
    #[schema(inline)]
    reading: Reading,
}

/// The view of a backend's gauge; `on_failure`: what a verdict does.
pub(super) fn view(gauge: &Gauge, on_failure: OnFailure) -> View {
    let one = |reading: Reading| One {
        evidence: reading.evidence,
        reading,
    };
    View {
        evidence: gauge.evidence(),
        on_failure,
        reading: gauge.nearest(),
        judges: gauge.readings().into_iter().map(one).collect(),
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
    /// Those of them that failed, or were slow where that is judged.
    canary_failures: u64,
    /// Stable requests over the same stretch.
    stable_requests: u64,
    /// Those of them that failed, or were slow.
    stable_failures: u64,
    /// Length of the stretch in seconds.
    seconds: f64,
    /// Upper bound of stable's usual failure rate, 0 to 1.
    usual_rate: f64,
    /// The odds of such counts from a healthy canary are at most one in ten to this power.
    odds_power: f64,
}
