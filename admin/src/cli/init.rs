//! `init`: the first config file, from flags, or from answers on a terminal.
//!
//! What it writes is short, explains itself, and is checked before it is written: an answer that the
//! config file would not take is refused in the words that `check` has for it. It never replaces a file
//! that is there without being told to.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use anstream::println;
use atomic_write_file::AtomicWriteFile;
use serde_json::json;
use switchback_config::units::Endpoint;

use super::args::{InitArgs, Output, Target};
use super::{Failed, exit};

/// Writes the file, and says what to do next.
pub(super) fn init(target: &Target, mut args: InitArgs) -> Result<u8, Failed> {
    refuse_existing(&args.file, args.force)?;
    if args.stable.is_empty() {
        if !io::stdin().is_terminal() {
            return Err(Failed::with_code(
                "where do requests go? name the version that serves now, and the new one if there is one: switchback init --stable http://127.0.0.1:9001 --canary http://127.0.0.1:9002",
                2,
            ));
        }
        ask(&mut args, &mut io::stdin().lock(), &mut io::stderr())?;
    }
    if !args.canary.is_empty() && args.canary_version == args.stable_version {
        let label = &args.stable_version;
        let message = format!(
            "both versions are labelled {label:?}, and a rollback keeps a version out by its label; give the new one another with --canary-version"
        );
        return Err(Failed::with_code(message, 2));
    }
    let listen = address(&args.listen);
    let text = text(&args, &listen);
    let parsed = switchback_config::parse(&text);
    if let Some(fault) = parsed.diagnostics.iter().find(|fault| fault.is_error()) {
        let value = fault.value.trim();
        let message = format!("{value}: {}; {}", fault.reason, fault.repair);
        return Err(Failed::with_code(message, 2));
    }
    write(&args.file, &text, args.force)?;
    tell(target, &args, &listen);
    Ok(0)
}

fn refuse_existing(file: &Path, force: bool) -> Result<(), Failed> {
    if force || !file.exists() {
        return Ok(());
    }
    Err(exists(file))
}

fn exists(file: &Path) -> Failed {
    let message = format!(
        "{} is there already; --force replaces it, or name another file",
        file.display()
    );
    Failed::with_code(message, exit::CANNOT_CREATE)
}

/// A port alone is one of this machine.
fn address(listen: &str) -> String {
    match listen.trim_start_matches(':').parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => listen.to_owned(),
    }
}

/// Asks for what was not said.
fn ask(
    args: &mut InitArgs,
    answers: &mut impl BufRead,
    terminal: &mut impl Write,
) -> Result<(), Failed> {
    let mut question = |text: &str, prompt: &str| -> Result<String, Failed> {
        write!(terminal, "{text}\n{prompt}: ")?;
        terminal.flush()?;
        let mut line = String::new();
        match answers.read_line(&mut line)? {
            0 => Err(Failed::with_code("no answer; nothing was written", 2)),
            _ => Ok(line.trim().to_owned()),
        }
    };
    let first = "Where does the version listen that serves now? For example http://127.0.0.1:9001";
    args.stable = urls(|| question(first, "stable"), true)?;
    let second = "And the new version? Press Enter if there is none yet.";
    args.canary = urls(|| question(second, "canary"), false)?;
    let health = question(
        "Which path tells whether it is well? For example /healthz; press Enter if there is none.",
        "health",
    )?;
    args.health = Some(health).filter(|path| !path.is_empty());
    let text = format!(
        "On which address do clients connect? Press Enter for {}",
        args.listen
    );
    let listen = question(&text, "listen")?;
    if !listen.is_empty() {
        args.listen = listen;
    }
    let text = format!(
        "What is the service called? Press Enter for {}",
        args.service
    );
    let service = question(&text, "service")?;
    if !service.is_empty() {
        args.service = service;
    }
    Ok(())
}

/// Asks until every word of the answer is an endpoint.
fn urls(
    mut question: impl FnMut() -> Result<String, Failed>,
    needed: bool,
) -> Result<Vec<String>, Failed> {
    loop {
        let answer = question()?;
        let words: Vec<String> = answer
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        let fault = words
            .iter()
            .find_map(|word| word.parse::<Endpoint>().err().map(|fault| (word, fault)));
        match fault {
            Some((word, fault)) => {
                anstream::eprintln!("{word}: {}; {}", fault.reason, fault.repair);
            }
            None if needed && words.is_empty() => {}
            None => return Ok(words),
        }
    }
}

/// Text as it may stand in YAML, whatever is in it.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

/// A name as people write it, quoted only where it would be something else.
fn name(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let means_something = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    match is_plain && !means_something {
        true => text.to_owned(),
        false => quoted(text),
    }
}

fn list(urls: &[String]) -> String {
    let urls: Vec<String> = urls.iter().map(|url| quoted(url)).collect();
    format!("[{}]", urls.join(", "))
}

/// The file.
fn text(args: &InitArgs, listen: &str) -> String {
    let service = name(&args.service);
    let mut text = format!(
        "# The config file of switchback, made by `switchback init`. A change of it is taken over as soon as it is
# written, as a whole or not at all; `switchback check` tells beforehand what is wrong with it.
version: 1

# The API, /metrics and what the command line talks to. Only this machine reaches it.
admin: {{address: \"127.0.0.1:9900\"}}

# Where clients connect; 0.0.0.0 instead of 127.0.0.1 lets other machines in.
listeners:
  web: {{address: {listen}}}

# Which requests go to which service. host: and path: narrow a route.
routes:
  - {{service: {service}}}

services:
  {service}:
    # The backend that serves now, and what a rollback goes back to. All others are canaries.
    stable: blue
{backends}
",
        listen = quoted(listen),
        backends = backends(args),
    );
    let health = match &args.health {
        Some(path) => format!("health: {{path: {}, interval: 2s}}", quoted(path)),
        None => "# health: {path: /healthz, interval: 2s}".into(),
    };
    let _ = write!(
        text,
        "
    # Ask every endpoint whether it is well. Without this, only connections that fail tell.
    {health}

    # The judge rolls a canary back by itself when it fails this much more of its requests than stable.
    rollback: {{max_extra_errors: 1%}}

    # What `switchback deploy` and `switchback rollout start` do, as long as the judge has nothing against it.
    rollout:
      steps: [{{weight: 1%, for: 5m}}, {{weight: 10%, for: 10m}}, {{weight: 50%, for: 10m}}]
"
    );
    text
}

/// The weights and the backends; the second one as a comment if there is none yet.
fn backends(args: &InitArgs) -> String {
    let one = |color: &str, version: &str, urls: &[String]| {
        format!(
            "{color}: {{version: {}, endpoints: {}}}",
            quoted(version),
            list(urls)
        )
    };
    let blue = one("blue", &args.stable_version, &args.stable);
    let note = "# version: label of what is deployed there, a digest, a tag or a build number.";
    if args.canary.is_empty() {
        let soon = ["http://127.0.0.1:9002".to_owned()];
        let green = one("green", &args.canary_version, &soon);
        return format!(
            "    backends:
      {note}
      {blue}
      # The next version goes here; then everything still goes to blue until somebody says otherwise.
      # {green}"
        );
    }
    let green = one("green", &args.canary_version, &args.canary);
    format!(
        "    # Share of the requests = weight / sum. While it runs: switchback weights {} blue=95 green=5
    weights: {{blue: 100, green: 0}}
    backends:
      {note}
      {blue}
      {green}",
        name(&args.service)
    )
}

/// Writes it whole; a file that came into being meanwhile stays.
fn write(file: &Path, text: &str, force: bool) -> Result<(), Failed> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => Failed::with_code(
            format!("write {}: {error}", file.display()),
            exit::CANNOT_CREATE,
        ),
    };
    if force {
        let mut replaced = AtomicWriteFile::open(file).map_err(cannot)?;
        replaced.write_all(text.as_bytes()).map_err(cannot)?;
        return replaced.commit().map_err(cannot);
    }
    let mut created = std::fs::File::create_new(file).map_err(cannot)?;
    let written = created.write_all(text.as_bytes());
    if written.is_err() {
        let _ = std::fs::remove_file(file);
    }
    written.map_err(cannot)
}

fn tell(target: &Target, args: &InitArgs, listen: &str) {
    let file = args.file.display().to_string();
    let run = match file.as_str() {
        "switchback.yaml" => "switchback run".to_owned(),
        file => format!("switchback run --config {file}"),
    };
    if target.output == Output::Json {
        println!(
            "{:#}",
            json!({"file": file, "next": [run, "switchback status"]})
        );
        return;
    }
    println!("wrote {file}: clients connect to {listen}, and everything goes to blue");
    println!("next:\n  {run}\n  switchback status            # in another terminal");
    if args.canary.is_empty() {
        println!("then add the new version to {file}, and give it a part of the requests");
    } else {
        let service = &args.service;
        println!("  switchback weights {service} blue=95 green=5");
    }
}
