//! What the environment says about traces, in the variables of the OpenTelemetry specification.

use std::io;

use switchback_proxy::trace::Sampler;

/// Traces cannot be exported as the environment says.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// A variable says what cannot be done.
    #[error("{name}={value}: {reason}")]
    Unusable {
        /// The variable.
        name: &'static str,
        /// What it says.
        value: String,
        /// Why not, and what can be done.
        reason: &'static str,
    },
    /// The exporter does not accept what the environment says.
    #[error("export traces: {0}")]
    Exporter(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The thread that exports.
    #[error("start the export of traces: {0}")]
    Start(#[from] io::Error),
}

/// Reads the environment: which requests get a span; none where nothing is exported.
pub(super) fn read(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Sampler>, SettingError> {
    let get = |name: &str| variable(name).filter(|value| !value.is_empty());
    if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match get("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => {
            let reason = "traces are exported over OTLP only: otlp or none";
            return Err(unusable("OTEL_TRACES_EXPORTER", other, reason));
        }
    }
    let first_of = |names: [&'static str; 2]| {
        let mut found = names
            .into_iter()
            .filter_map(|name| Some((name, get(name)?)));
        found.next()
    };
    let endpoint = first_of([
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ]);
    let Some((name, endpoint)) = endpoint else {
        return Ok(None);
    };
    if !endpoint.starts_with("http://") {
        let reason = "spans leave over http:// only; send them to a collector beside switchback, which can encrypt";
        return Err(unusable(name, &endpoint, reason));
    }
    let protocol = first_of([
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ]);
    if let Some((name, protocol)) = protocol
        && protocol != "http/protobuf"
    {
        let reason = "only http/protobuf is spoken, usually on port 4318";
        return Err(unusable(name, &protocol, reason));
    }
    sampler(
        get("OTEL_TRACES_SAMPLER").as_deref(),
        get("OTEL_TRACES_SAMPLER_ARG"),
    )
    .map(Some)
}

fn sampler(name: Option<&str>, argument: Option<String>) -> Result<Sampler, SettingError> {
    let name = name.unwrap_or("parentbased_always_on");
    let (follows_parent, own) = match name.strip_prefix("parentbased_") {
        Some(own) => (true, own),
        None => (false, name),
    };
    let ratio = match own {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio(argument)?,
        _ => {
            let reason = "expected always_on, always_off or traceidratio, with or without parentbased_ before it";
            return Err(unusable("OTEL_TRACES_SAMPLER", name, reason));
        }
    };
    Ok(Sampler {
        follows_parent,
        ratio,
    })
}

fn ratio(argument: Option<String>) -> Result<f64, SettingError> {
    let Some(text) = argument else { return Ok(1.0) };
    let ratio = text.trim().parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| {
            let reason = "expected a share from 0 to 1, as 0.01";
            unusable("OTEL_TRACES_SAMPLER_ARG", &text, reason)
        })
}

fn unusable(name: &'static str, value: &str, reason: &'static str) -> SettingError {
    SettingError::Unusable {
        name,
        value: value.into(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(pairs: &[(&str, &str)]) -> Result<Option<(bool, f64)>, String> {
        let variable = |wanted: &str| {
            let pair = pairs.iter().find(|(name, _)| *name == wanted);
            pair.map(|(_, value)| (*value).to_owned())
        };
        let sampler = read(variable).map_err(|error| error.to_string())?;
        Ok(sampler.map(|sampler| (sampler.follows_parent, sampler.ratio)))
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn nothing_is_exported_unless_it_is_said_where_to() {
        assert_eq!(read_all(&[]), Ok(None));
        assert_eq!(read_all(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(
            read_all(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]),
            Ok(None)
        );
        assert_eq!(
            read_all(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]),
            Ok(None)
        );
        assert_eq!(read_all(&[ENDPOINT]), Ok(Some((true, 1.0))));
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        for (name, argument, expected) in [
            ("always_on", "", (false, 1.0)),
            ("always_off", "", (false, 0.0)),
            ("traceidratio", "0.25", (false, 0.25)),
            ("parentbased_always_off", "", (true, 0.0)),
            ("parentbased_traceidratio", "0.01", (true, 0.01)),
        ] {
            let pairs = [
                ENDPOINT,
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ];
            assert_eq!(read_all(&pairs), Ok(Some(expected)), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said_with_name_value_and_reason() {
        for (name, value, said) in [
            ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "https://c:4318",
                "http:// only",
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "only http/protobuf"),
            ("OTEL_TRACES_SAMPLER", "some", "expected always_on"),
        ] {
            let error = read_all(&[ENDPOINT, (name, value)]).expect_err(name);
            assert!(error.starts_with(&format!("{name}={value}: ")), "{error}");
            assert!(error.contains(said), "{error}");
        }
        let pairs = [
            ENDPOINT,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ];
        assert!(read_all(&pairs).is_err());
    }
}
