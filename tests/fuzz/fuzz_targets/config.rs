//! No text makes the reader of configuration files panic, and a usable one explains itself.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let parsed = switchback_config::parse(&text);
    let _ = switchback_config::diagnostic::render_all(&parsed.diagnostics, &text, "f", false);
    let Some(config) = parsed.config else {
        assert!(!parsed.diagnostics.is_empty(), "refused in silence");
        return;
    };
    let explained = switchback_config::explain(&config);
    assert_eq!(switchback_config::parse(&explained).config, Some(config), "{explained}");
});
