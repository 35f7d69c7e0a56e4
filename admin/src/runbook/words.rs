//! What a run says: how bad it is, what a status page may say of it, and what is left to do.

use jiff::Timestamp;
use switchback_config::model::StepKind;
use switchback_proxy::exposure::Impact;

use super::step::Work;
use crate::builder::find;
use crate::state::StepStatus;

/// How far back the error rate is looked at.
const MINUTE: u32 = 60;

/// Error rate, users and requests concerned, in sentences.
pub(super) async fn assess(work: Work<'_>) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(status) = work.published.services.get(work.service) {
        let effective = &status.effective;
        let parts = effective.backends.keys().map(|name| {
            let share = percent(effective.share(name));
            format!(
                "{name} ({}) has {share} of the traffic",
                effective.version(name)
            )
        });
        found.push(parts.collect::<Vec<_>>().join(", "));
    }
    let pace = work.crew.trends.pace(work.service, MINUTE);
    let rate = f64::from(pace.failures) / f64::from(pace.requests.max(1));
    let p99 = pace.p99_ms.map(|ms| format!(", 99 % within {ms:.0} ms"));
    found.push(format!(
        "{} of {} requests failed in the last {} s, {}{}",
        pace.failures,
        pace.requests,
        pace.seconds,
        percent(rate),
        p99.unwrap_or_default()
    ));
    let live = find(&work.published.snapshot, work.service);
    for (backend, exposure) in live
        .iter()
        .flat_map(|live| live.backends.iter().zip(&live.exposures))
    {
        if let Some(exposure) = exposure {
            found.push(reach(&backend.name, &backend.version, &exposure.impact()));
        }
    }
    let service = Some(work.service.clone());
    let last = work.crew.store.rollbacks(service, None, 1).await;
    let last = last.ok().and_then(|last| last.into_iter().next());
    if let Some(last) = last.filter(|last| last.at >= work.run.since) {
        found.push(format!(
            "rollback {} of {} ({}): {}",
            last.id, last.backend, last.version, last.sentence
        ));
    }
    found
}

fn reach(backend: &str, version: &str, impact: &Impact) -> String {
    let of = |reach: switchback_proxy::exposure::Reach| {
        format!(
            "{} requests of about {} clients",
            reach.requests, reach.clients
        )
    };
    format!(
        "{backend} ({version}) met {}; {} saw an error, {} were rescued",
        of(impact.touched),
        of(impact.failed),
        of(impact.rescued)
    )
}

/// What may be published of it. Says nothing of who, and nothing of names within.
pub(super) fn status(work: Work<'_>) -> String {
    let run = work.run;
    let ended = |kind| {
        let steps = run.plan.iter().zip(&run.steps);
        let mut done = steps.filter(|(step, done)| step.kind == kind && is_done(done.status));
        done.find_map(|(_, done)| done.ended)
    };
    let mut text = format!(
        "Since {} some requests to {} have failed.",
        minute(run.since),
        work.service
    );
    if let Some(at) = ended(StepKind::Execute) {
        text += &format!(" At {} we went back to what served before.", minute(at));
    }
    text += &match ended(StepKind::Verify) {
        Some(at) => format!(" Since {} errors are back to usual.", minute(at)),
        None => " We are watching whether errors go back to usual.".into(),
    };
    text
}

/// What is left to do, with where the numbers are.
pub(super) fn post_incident(work: Work<'_>) -> Vec<String> {
    let run = work.run;
    let mut left = Vec::new();
    match run.rollback {
        Some(id) => left.push(format!(
            "the report: switchback incident {id} -o markdown > incident-{id}.md"
        )),
        None => left.push(format!(
            "no rollback is on record; what happened: switchback history {}",
            work.service
        )),
    }
    let late = run
        .steps
        .iter()
        .zip(&run.plan)
        .filter(|(done, _)| done.overdue);
    for (_, step) in late {
        let limit = step.duration.as_deref().unwrap_or_default();
        left.push(format!("{} took longer than {limit}: why?", step.name));
    }
    left.push("schedule the postmortem, and make tickets of its follow-ups".into());
    left
}

const fn is_done(status: StepStatus) -> bool {
    matches!(status, StepStatus::Done | StepStatus::Skipped)
}

fn minute(at: Timestamp) -> String {
    at.strftime("%H:%M UTC").to_string()
}

/// A share as people write it.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
