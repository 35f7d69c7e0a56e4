//! Which service, backend and version a line is about.

use std::collections::HashMap;

use switchback_config::model::Config;

use super::line::Line;

/// Labels of one backend that are told apart; a log with more is no log of one service.
const LABELS_MAX: usize = 1_000;

/// Names as they are written in logs, and their numbers.
#[derive(Debug)]
pub(super) struct Names {
    services: Vec<ServiceNames>,
    by_name: HashMap<Vec<u8>, usize>,
    /// Lines of one service often follow each other.
    last: usize,
}

#[derive(Debug)]
struct ServiceNames {
    name: Vec<u8>,
    backends: Vec<BackendNames>,
}

#[derive(Debug)]
struct BackendNames {
    name: Vec<u8>,
    /// Escaped as in JSON; the first one is the file's.
    labels: Vec<Vec<u8>>,
    last: usize,
}

/// A place in [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) service: usize,
    pub(super) backend: usize,
    pub(super) label: usize,
}

/// A text as it stands between quotes.
fn escaped(text: &str) -> Vec<u8> {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.as_bytes()[1..quoted.len() - 1].to_vec()
}

impl Names {
    pub(super) fn new(config: &Config) -> Self {
        let services = config.services.iter().map(|(name, service)| ServiceNames {
            name: escaped(name),
            backends: service
                .backends
                .iter()
                .map(|(name, backend)| BackendNames {
                    name: escaped(name),
                    labels: vec![escaped(&backend.version)],
                    last: 0,
                })
                .collect(),
        });
        let services: Vec<ServiceNames> = services.collect();
        let by_name = services.iter().enumerate();
        let by_name = by_name.map(|(index, service)| (service.name.clone(), index));
        Self {
            by_name: by_name.collect(),
            services,
            last: 0,
        }
    }

    /// A service by its name in the log.
    pub(super) fn service(&mut self, name: &[u8]) -> Option<usize> {
        let last = self.services.get(self.last);
        if last.is_none_or(|last| last.name != name) {
            self.last = *self.by_name.get(name)?;
        }
        Some(self.last)
    }

    /// The backend that a line's request was sent to first, with the label that it had.
    pub(super) fn place(&mut self, service: usize, line: &Line<'_>) -> Option<Place> {
        let is_rescued = !line.rescued_from.is_empty();
        let name = match is_rescued {
            true => line.rescued_from,
            false => line.backend,
        };
        let backends = &mut self.services[service].backends;
        let backend = backends.iter().position(|backend| backend.name == name)?;
        let names = &mut backends[backend];
        // The label beside a rescue is that of stable, which answered.
        if !is_rescued && !line.version.is_empty() && names.labels[names.last] != line.version {
            let known = names.labels.iter().position(|label| label == line.version);
            names.last = match known {
                Some(known) => known,
                None if names.labels.len() >= LABELS_MAX => return None,
                None => {
                    names.labels.push(line.version.to_vec());
                    names.labels.len() - 1
                }
            };
        }
        Some(Place {
            service,
            backend,
            label: names.last,
        })
    }

    /// A label as people write it.
    pub(super) fn label(&self, place: Place) -> String {
        let backend = &self.services[place.service].backends[place.backend];
        let label = &backend.labels[place.label];
        let quoted = [b"\"", &label[..], b"\""].concat();
        let text = serde_json::from_slice(&quoted);
        text.unwrap_or_else(|_| String::from_utf8_lossy(label).into_owned())
    }
}
