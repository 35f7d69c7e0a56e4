//! Hides secrets in a configuration that is shown to people: of hooks, whatever may be a key.
//!
//! Works on the written form, since what is shown may be a whole file or a piece of one.

use serde_json::Value;

/// What stands in place of a secret.
const MASK: &str = "***";

/// Hides what may be secret in a configuration, or any piece of one that holds whole services.
pub fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::Array(_) if key == "hooks" => mask_hooks(value),
                    value => mask(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

/// The same in a list of hooks: header values, variables, and of URLs what comes after the host.
pub(crate) fn mask_hooks(hooks: &mut Value) {
    for hook in hooks.as_array_mut().into_iter().flatten() {
        for table in ["headers", "env"] {
            let values = hook.get_mut(table).and_then(Value::as_object_mut);
            for (_, value) in values.into_iter().flatten() {
                *value = MASK.into();
            }
        }
        mask_url(hook.get_mut("http"));
        mask_url(
            hook.get_mut("until")
                .and_then(|until| until.get_mut("http")),
        );
    }
}

fn mask_url(url: Option<&mut Value>) {
    if let Some(Value::String(url)) = url {
        *url = masked_url(url);
    }
}

/// Slack and others put their secret into the path, so nothing after the host is shown.
fn masked_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return MASK.into();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let after = if after.len() > 1 { "/***" } else { after };
    format!("{scheme}://{host}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn masked_urls_show_the_host_only() {
        for (url, masked) in [
            (
                "https://hooks.slack.com/services/T0/B0/key",
                "https://hooks.slack.com/***",
            ),
            ("http://me:pw@host:7000/x?token=1", "http://host:7000/***"),
            ("http://host:7000/", "http://host:7000/"),
            ("http://host", "http://host"),
            ("http://host?key=1", "http://host/***"),
        ] {
            assert_eq!(masked_url(url), masked);
        }
    }

    #[test]
    fn nothing_secret_of_a_hook_is_shown() {
        let hook = json!({
            "name": "chat", "http": "http://a/secret", "headers": {"authorization": "secret"},
            "env": {"KEY": "secret"}, "until": {"http": "http://b/?secret"},
        });
        let mut config = json!({"services": {"shop": {"stable": "blue", "hooks": [hook]}}});
        mask(&mut config);
        let shown = config.to_string();
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(config["services"]["shop"]["stable"], "blue");
        assert_eq!(config["services"]["shop"]["hooks"][0]["name"], "chat");
    }
}
