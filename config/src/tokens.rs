//! The tokens file: who may call the admin API.

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

/// Reads a tokens file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_tokens(text: &str) -> Result<Vec<TokenEntry>, Vec<Diagnostic>> {
    let cx = Context::new(text);
    let list = node::parse(&cx).and_then(|root| Vec::<Spanned<RawToken>>::decode(&root, "", &cx));
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
    let digest = digest(&sha256.value);
    if digest.is_none() {
        let repair = "write the 64 digits that switchback token new prints";
        cx.error(
            Code::InvalidValue,
            sha256,
            "this is not a SHA-256 digest",
            repair,
        );
    }
    Some(TokenEntry {
        name: name.value.clone(),
        role: role.value.clone(),
        digest: digest?,
    })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let valid = text.len() == 64 && text.is_ascii();
    for (index, byte) in digest.iter_mut().enumerate().filter(|_| valid) {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    valid.then_some(digest)
}
