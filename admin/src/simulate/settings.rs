//! The settings that are compared: those of the file, and the same with some keys of `rollback` changed.

use std::sync::Arc;

use serde_json::{Value, json};
use switchback_config::model::{Config, Rule};

/// One set of settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `file`, or what differs from it.
    pub words: String,
    /// The whole configuration.
    pub config: Arc<Config>,
    /// What of it cannot be simulated: rules about what is measured elsewhere.
    pub left_out: Vec<String>,
}

/// Settings that cannot be tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is not written as `KEY=VALUE`.
    #[error("{0:?} is not KEY=VALUE with a key of rollback, such as max_extra_errors=2%")]
    Form(String),
    /// The file would not be valid with it.
    #[error("{words}: {reason}; {repair}")]
    Invalid {
        /// What was asked for.
        words: String,
        /// Why it is refused.
        reason: String,
        /// What to write instead.
        repair: String,
    },
}

impl Settings {
    /// Those of the file.
    #[must_use]
    pub fn of_file(config: &Config) -> Self {
        let (config, left_out) = simulated(config);
        Self {
            words: "file".into(),
            config: Arc::new(config),
            left_out,
        }
    }

    /// The file's with other values for some keys of every `rollback`: `KEY=VALUE; KEY=VALUE`.
    ///
    /// # Errors
    /// When that is not how it is written, or would not be valid in the file.
    pub fn with(file: &Config, words: &str) -> Result<Self, SettingsError> {
        let mut value = json!({"version": 1});
        let written = serde_json::to_value(file).unwrap_or_default();
        if let (Some(whole), Value::Object(written)) = (value.as_object_mut(), written) {
            whole.extend(written);
        }
        for setting in words.split(';') {
            let (key, text) = setting
                .split_once('=')
                .ok_or_else(|| SettingsError::Form(setting.trim().into()))?;
            let (key, text) = (key.trim(), text.trim());
            // Numbers, lists and the like as in JSON; everything else is text, as in YAML.
            let wanted = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
            let services = value["services"].as_object_mut().into_iter().flatten();
            for (_, service) in services {
                service["rollback"][key] = wanted.clone();
            }
        }
        let parsed = switchback_config::parse(&value.to_string());
        let fault = parsed.diagnostics.iter().find(|fault| fault.is_error());
        match (parsed.config, fault) {
            (Some(config), _) => Ok(Self {
                words: words.trim().into(),
                ..Self::of_file(&config)
            }),
            (None, fault) => Err(SettingsError::Invalid {
                words: words.trim().into(),
                reason: fault.map_or_else(String::new, |fault| fault.reason.clone()),
                repair: fault.map_or_else(String::new, |fault| fault.repair.clone()),
            }),
        }
    }
}

/// The file without what a log says nothing about, and the rules that are left out.
#[must_use]
pub fn simulated(config: &Config) -> (Config, Vec<String>) {
    let mut config = config.clone();
    let mut left_out = Vec::new();
    for (name, service) in &mut config.services {
        service.mirror = None;
        service.hooks.clear();
        service.rollback.rules.retain(|rule| match rule {
            Rule::Rate(_) => true,
            Rule::Signal(signal) => {
                left_out.push(format!("{name}: rule {:?}", signal.name));
                false
            }
        });
    }
    (config, left_out)
}
