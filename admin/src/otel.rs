//! Traces for a collector, over OTLP/HTTP: a span of each sampled request, and one of each event.
//!
//! What is exported where, and how much, is said by the environment, in the variables that all of OpenTelemetry
//! reads (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and so on); without an
//! endpoint nothing is. Workers hand over what they know of a request (`switchback_proxy::trace`), and a thread of
//! its own turns it into spans and sends them (`export`). A collector that is slow or away costs spans, which are
//! counted, and nothing else.
//!
//! Part of builds with the feature `otel`; others say that they cannot when they are asked to.

#[cfg(feature = "otel")]
mod export;
mod settings;
#[cfg(feature = "otel")]
mod spans;

use std::time::Duration;

use switchback_proxy::trace::Traces;
use tokio::sync::oneshot;

pub(crate) use settings::SettingError;

use crate::events::Events;

/// How long the process waits at its end for the last spans to be taken.
const LAST_EXPORT: Duration = Duration::from_secs(1);

/// The thread that exports.
#[derive(Debug)]
pub(crate) struct Exporting(oneshot::Receiver<()>);

impl Exporting {
    /// Waits until everything is exported that workers have told, which ended before; a second at most.
    pub(crate) async fn end(self) {
        // Without the thread there is nothing to wait for.
        let _ = tokio::time::timeout(LAST_EXPORT, self.0).await;
    }
}

/// Begins to export what workers and events tell, if the environment says where to.
///
/// # Errors
/// When it says what cannot be done, or the thread cannot be started.
pub(crate) fn start(events: &Events) -> Result<Option<(Traces, Exporting)>, SettingError> {
    let Some(sampler) = settings::read(|name| std::env::var(name).ok())? else {
        return Ok(None);
    };
    #[cfg(feature = "otel")]
    {
        let (traces, spans) = Traces::new(sampler);
        let (sender, done) = oneshot::channel();
        export::start(
            spans,
            events.follow(None).coming,
            traces.lost().clone(),
            sender,
        )?;
        Ok(Some((traces, Exporting(done))))
    }
    #[cfg(not(feature = "otel"))]
    {
        let _ = (sampler, events);
        tracing::warn!(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but this build exports no traces: it was made without the feature otel"
        );
        Ok(None)
    }
}
