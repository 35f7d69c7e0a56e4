//! A section of a service, checked as a part of a file that has nothing else in it.

use serde_json::{Map, Value, json};
use switchback_config::diagnostic::Diagnostic;

use super::ImportError;

/// The file around a section.
fn whole(section: &Map<String, Value>) -> String {
    let endpoint = |port: u16| json!([format!("http://127.0.0.1:{port}")]);
    let mut service = json!({
        "stable": "stable",
        "backends": {
            "stable": {"version": "1", "endpoints": endpoint(9_001)},
            "canary": {"version": "2", "endpoints": endpoint(9_002)},
        },
    });
    if let Some(service) = service.as_object_mut() {
        service.extend(section.clone());
    }
    json!({
        "version": 1,
        "listeners": {"web": {"address": "127.0.0.1:8080"}},
        "routes": [{"service": "service"}],
        "services": {"service": service},
    })
    .to_string()
}

/// The first error of a section, if it has one.
pub(super) fn fault(section: &Map<String, Value>) -> Option<Diagnostic> {
    let parsed = switchback_config::parse(&whole(section));
    parsed.diagnostics.into_iter().find(Diagnostic::is_error)
}

/// Refuses a section that `check` would refuse.
pub(super) fn check(section: &Map<String, Value>) -> Result<(), ImportError> {
    let Some(fault) = fault(section) else {
        return Ok(());
    };
    let path = fault
        .path
        .trim_start_matches("services.service.")
        .to_owned();
    Err(ImportError::Invalid {
        path,
        reason: fault.reason,
        repair: fault.repair,
    })
}
