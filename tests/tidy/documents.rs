//! Documents say nothing that is not so: their config files are valid, their links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{files, root};

/// Everything that people read.
pub(super) fn documents() -> Vec<PathBuf> {
    let mut documents: Vec<PathBuf> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    for directory in ["docs", "deploy", "benches"] {
        documents.extend(files(&root().join(directory), ".md"));
    }
    documents.sort();
    documents
}

/// Blocks of code in this language.
pub(super) fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        let fence = line.trim_start();
        match &mut current {
            Some(_) if fence == "```" => found.extend(current.take()),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if fence.strip_prefix("```") == Some(language) => current = Some(String::new()),
            None => {}
        }
    }
    found
}

#[test]
fn config_files_in_documents_are_valid() {
    let mut seen = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        // Others are parts of a file.
        let whole = blocks(&text, "yaml").into_iter();
        for block in whole.filter(|block| block.starts_with("version: 1\n")) {
            seen += 1;
            let name = path.display().to_string();
            let parsed = switchback_config::parse(&block);
            let faults = &parsed.diagnostics;
            let rendered = switchback_config::diagnostic::render_all(faults, &block, &name, false);
            assert!(parsed.config.is_some() && faults.is_empty(), "{rendered}");
        }
    }
    assert!(seen >= 6, "{seen}");
}

#[test]
fn proxies_that_people_come_from_have_a_file_each() {
    let text = fs::read_to_string(root().join("docs/coming-from.md")).unwrap();
    for name in ["nginx", "HAProxy", "Envoy"] {
        let (_, section) = text.split_once(&format!("\n## {name}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let ours = blocks(section, "yaml");
        assert!(
            ours.iter().any(|block| block.starts_with("version: 1\n")),
            "{name}"
        );
    }
}

/// What headings of a page are called in links.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !is_code) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = |character: &char| character.is_alphanumeric() || "-_ ".contains(*character);
            let anchor: String = heading.chars().filter(kept).collect();
            anchors.insert(anchor.replace(' ', "-"));
        }
    }
    anchors
}

/// What links of a text lead to, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if is_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            found.extend(part.split_once(')').map(|(link, _)| link.to_owned()));
        }
    }
    found
}

fn broken(page: &Path, link: &str) -> Option<String> {
    if link.starts_with("http://") || link.starts_with("https://") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => page.to_path_buf(),
        path => page.parent().unwrap().join(path),
    };
    let wrong = || Some(format!("{}: {link}", page.display()));
    if !target.exists() {
        return wrong();
    }
    if anchor.is_empty() {
        return None;
    }
    let text = fs::read_to_string(&target).unwrap_or_default();
    if anchors(&text).contains(anchor) {
        None
    } else {
        wrong()
    }
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in documents() {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            seen += 1;
            wrong.extend(broken(&page, &link));
        }
    }
    assert!(seen > 100, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_of_the_guides_are_of_the_kinds_that_are_run_by_tests() {
    for page in files(&root().join("docs"), ".md") {
        for block in blocks(&fs::read_to_string(&page).unwrap(), "sh") {
            for line in block.lines() {
                let is_run = ["switchback ", "curl ", "for n in ", "HOST="]
                    .iter()
                    .any(|start| line.starts_with(start));
                assert!(is_run, "{}: {line}", page.display());
            }
        }
    }
}
