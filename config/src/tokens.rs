//! Tokens files: who may call the admin API, and who may ask for flags.

use crate::decode::{Context, Decode, Spanned, section};
use crate::diagnostic::{Code, Diagnostic};
use crate::node;

section! {
    /// A token of the admin API.
    RawToken {
        /// Who holds it, as recorded with every change.
        name: String,
        /// viewer, rollback, operator or admin.
        role: String,
        /// SHA-256 of the token in hexadecimal.
        sha256: String,
    }
}

/// A token of the admin API, of which only the digest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEntry {
    /// Who holds it.
    pub name: String,
    /// viewer, rollback, operator or admin.
    pub role: String,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
}

/// Roles from the least to the most powerful.
const ROLES: [&str; 4] = ["viewer", "rollback", "operator", "admin"];

section! {
    /// A token of an application that asks for flags.
    RawFlagToken {
        /// Which application holds it.
        name: String,
        /// SHA-256 of the token in hexadecimal.
        sha256: String,
    }
}

/// A token of an application, of which only the digest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagTokenEntry {
    /// Which application holds it.
    pub name: String,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
}

/// Reads a tokens file of the admin API.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_tokens(text: &str) -> Result<Vec<TokenEntry>, Vec<Diagnostic>> {
    parse(text, entry)
}

/// Reads a tokens file of those who ask for flags. These tokens have no role: they allow nothing else.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_flag_tokens(text: &str) -> Result<Vec<FlagTokenEntry>, Vec<Diagnostic>> {
    parse(text, |written: &Spanned<RawFlagToken>, cx| {
        let RawFlagToken { name, sha256 } = &written.value;
        let (Some(name), Some(sha256)) = (name, sha256) else {
            let reason = "a token needs name and sha256";
            cx.error(Code::MissingKey, written, reason, "add what is missing");
            return None;
        };
        Some(FlagTokenEntry {
            name: name.value.clone(),
            digest: digest(sha256, cx)?,
        })
    })
}

fn parse<R: Decode, T>(
    text: &str,
    entry: impl Fn(&Spanned<R>, &Context<'_>) -> Option<T>,
) -> Result<Vec<T>, Vec<Diagnostic>> {
    let cx = Context::new(text);
    let list = node::parse(&cx).and_then(|root| Vec::<Spanned<R>>::decode(&root, "", &cx));
    let tokens = list
        .into_iter()
        .flatten()
        .filter_map(|token| entry(&token, &cx))
        .collect();
    if cx.has_errors() {
        Err(cx.into_faults())
    } else {
        Ok(tokens)
    }
}

fn entry(written: &Spanned<RawToken>, cx: &Context<'_>) -> Option<TokenEntry> {
    let RawToken { name, role, sha256 } = &written.value;
    let (Some(name), Some(role), Some(sha256)) = (name, role, sha256) else {
        cx.error(
            Code::MissingKey,
            written,
            "a token needs name, role and sha256",
            "add what is missing",
        );
        return None;
    };
    if !ROLES.contains(&&*role.value) {
        let repair = crate::suggest::repair(&role.value, &ROLES, "role");
        cx.error(
            Code::UnknownWord,
            role,
            format!("there is no role {:?}", role.value),
            repair,
        );
    }
    Some(TokenEntry {
        name: name.value.clone(),
        role: role.value.clone(),
        digest: digest(sha256, cx)?,
    })
}

fn digest(written: &Spanned<String>, cx: &Context<'_>) -> Option<[u8; 32]> {
    let digest = digest_of(&written.value);
    if digest.is_none() {
        let reason = "this is not a SHA-256 digest";
        let repair = "write the 64 digits that switchback token new prints";
        cx.error(Code::InvalidValue, written, reason, repair);
    }
    digest
}

fn digest_of(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let valid = text.len() == 64 && text.is_ascii();
    for (index, byte) in digest.iter_mut().enumerate().filter(|_| valid) {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    valid.then_some(digest)
}
