//! What documents tell people to type must be what the command line takes.

use std::fs;
use std::path::Path;

use clap::Parser;
use switchback_admin::cli::Args;

use super::documents::{blocks, documents};
use super::{files, root};

/// The words of a line of shell, as far as documents use it; variables stand for some word.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, '#' | '|' | '>' | '&') if words.last().is_some_and(String::is_empty) => break,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().expect("there is one").push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Lines that begin with the name of the program: in blocks of Markdown, of shell, in steps of pipelines.
fn commands(text: &str) -> Vec<String> {
    let indented = text.lines().filter(|line| line.starts_with("    "));
    let lines = indented.map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("- ").unwrap_or(line);
        line.strip_prefix("run: ").unwrap_or(line).to_owned()
    });
    let blocks = blocks(text, "sh");
    let typed = blocks.iter().flat_map(|block| block.lines());
    let typed = typed
        .filter(|line| !line.starts_with("    "))
        .map(str::to_owned);
    let is_ours = |line: &String| line.starts_with("switchback ");
    lines.chain(typed).filter(is_ours).collect()
}

fn with_commands() -> Vec<std::path::PathBuf> {
    let mut documents = documents();
    documents.extend(files(&root().join("deploy"), ".yml"));
    documents
}

#[test]
fn commands_in_documents_are_understood() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for path in with_commands() {
        let text = fs::read_to_string(&path).unwrap();
        for line in commands(&text) {
            let line = line.as_str();
            seen += 1;
            if let Err(error) = Args::try_parse_from(words(line)) {
                wrong.push(format!("{}: {line}\n{error}", name(&path)));
            }
        }
    }
    assert!(seen > 80, "only {seen} commands found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn name(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[test]
fn words_are_split_as_a_shell_would() {
    let line = "switchback weights shop blue=95 --reason 'try 42'  # a canary";
    let expected = [
        "switchback",
        "weights",
        "shop",
        "blue=95",
        "--reason",
        "try 42",
    ];
    assert_eq!(words(line), expected);
}
