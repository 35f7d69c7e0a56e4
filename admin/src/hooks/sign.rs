//! Signatures as Standard Webhooks describes them: who holds the secret can tell that a message is
//! ours, unchanged, and not an old one sent again.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use switchback_config::defaults::HOOK_SECRETS_MAX;

/// What marks a secret written in base64.
const PREFIX: &str = "whsec_";

/// Shortest secret, in bytes: what Standard Webhooks asks for.
const SECRET_BYTES_MIN: usize = 24;

/// Secrets of one hook: the present one, and beside it the next one while receivers change over.
#[derive(Clone)]
pub(crate) struct Secrets(Vec<hmac::Key>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads the text of a secret file: one secret a line, `whsec_` and base64, or anything else as it
    /// stands.
    ///
    /// # Errors
    /// What is wrong with it. The secret itself is never repeated.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim);
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err(
                "there is no secret in it; write whsec_ and 24 or more bytes in base64".into(),
            );
        }
        if lines.len() > HOOK_SECRETS_MAX {
            return Err(format!("more than {HOOK_SECRETS_MAX} secrets, one a line"));
        }
        let keys = lines.into_iter().enumerate().map(|(index, line)| {
            let bytes = match line.strip_prefix(PREFIX) {
                Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
                    format!("line {}: what follows whsec_ is not base64", index + 1)
                })?,
                None => line.as_bytes().to_vec(),
            };
            if bytes.len() < SECRET_BYTES_MIN {
                let line = index + 1;
                return Err(format!(
                    "line {line}: a secret has {SECRET_BYTES_MIN} bytes or more"
                ));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        });
        keys.collect::<Result<_, String>>().map(Self)
    }

    /// The value of `webhook-signature`: one signature for each secret.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        let signatures = self.0.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(head.as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_that_of_the_specification() {
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn two_secrets_make_two_signatures() {
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let other = "a plain secret of enough bytes";
        let sign = |text: &str| {
            Secrets::parse(text)
                .expect("secrets")
                .sign("id", 1, b"body")
        };
        let both = sign(&format!("{one}\n\n  {other}\n"));
        assert_eq!(both, format!("{} {}", sign(one), sign(other)));
    }

    #[test]
    fn files_without_usable_secrets_are_refused_without_repeating_them() {
        for text in [
            "",
            "\n \n",
            "whsec_%%%%",
            "hush",
            "whsec_aHVzaA==",
            "a\nb\nc",
        ] {
            let error = Secrets::parse(text).expect_err("no usable secret");
            assert!(!error.contains("hush"), "{error}");
        }
        let three = "a plain secret of enough bytes\n".repeat(3);
        assert!(Secrets::parse(&three).is_err());
    }
}
