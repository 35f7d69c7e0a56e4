//! The thread that exports.

use opentelemetry::KeyValue;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use switchback_proxy::trace::{Lost, Span};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, oneshot};

use super::{SettingError, spans};
use crate::events::Event;

/// Spans of one message. Collectors refuse messages above some megabytes.
const BATCH: usize = 2048;

/// Starts the thread. It ends, and says so, when all workers have ended and what they told is exported.
pub(super) fn start(
    spans: mpsc::Receiver<Vec<Span>>,
    events: broadcast::Receiver<Event>,
    lost: Lost,
    done: oneshot::Sender<()>,
) -> Result<(), SettingError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exporter = exporter()?;
    std::thread::Builder::new()
        .name("traces".into())
        .spawn(move || {
            runtime.block_on(export(exporter, spans, events, lost));
            let _ = done.send(());
        })?;
    Ok(())
}

fn exporter() -> Result<SpanExporter, SettingError> {
    let exporter = SpanExporter::builder().with_http().build();
    let mut exporter = exporter.map_err(|cause| SettingError::Exporter(Box::new(cause)))?;
    let mut resource = Resource::builder();
    let has_name = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !has_name("OTEL_SERVICE_NAME") && !names_service() {
        resource = resource.with_service_name("switchback");
    }
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    exporter.set_resource(&resource.with_attribute(version).build());
    Ok(exporter)
}

fn names_service() -> bool {
    let attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    attributes
        .split(',')
        .any(|pair| pair.trim_start().starts_with("service.name="))
}

async fn export(
    exporter: SpanExporter,
    mut spans: mpsc::Receiver<Vec<Span>>,
    mut events: broadcast::Receiver<Event>,
    lost: Lost,
) {
    let mut failing = false;
    loop {
        let batch = tokio::select! {
            lot = spans.recv() => match lot {
                Some(lot) => gather(lot, &mut spans),
                None => return,
            },
            event = events.recv() => match event {
                Ok(event) => vec![spans::of_event(&event)],
                Err(RecvError::Lagged(missed)) => {
                    lost.add(usize::try_from(missed).unwrap_or(usize::MAX));
                    continue;
                }
                Err(RecvError::Closed) => return,
            },
        };
        let count = batch.len();
        let exported = exporter.export(batch).await;
        if let Err(error) = &exported {
            lost.add(count);
            if !failing {
                tracing::warn!(%error, "export traces; spans are lost until this ends");
            }
        } else if failing {
            tracing::info!("traces are exported again");
        }
        failing = exported.is_err();
    }
}

/// What is there already goes with the same message.
fn gather(lot: Vec<Span>, spans: &mut mpsc::Receiver<Vec<Span>>) -> Vec<SpanData> {
    let mut batch: Vec<SpanData> = lot.into_iter().map(spans::of_request).collect();
    while batch.len() < BATCH
        && let Ok(lot) = spans.try_recv()
    {
        batch.extend(lot.into_iter().map(spans::of_request));
    }
    batch
}
